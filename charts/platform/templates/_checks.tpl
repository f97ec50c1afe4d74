{{- /* Refuses values that contradict each other, with the key to change. */ -}}
{{- define "platform.check" -}}
{{- $store := .Values.global.objectStore.external.endpoint -}}
{{- $database := .Values.global.database.external.host -}}
{{- if and $store .Values.minio.enabled -}}
{{- fail "global.objectStore.external.endpoint is set, so that MinIO would stand idle: set minio.enabled=false." -}}
{{- end -}}
{{- if and $database .Values.mariadb.enabled -}}
{{- fail "global.database.external.host is set, so that MariaDB would stand idle: set mariadb.enabled=false." -}}
{{- end -}}
{{- if and (include "seatrial.driverService" .) (index .Values "argo-workflows").enabled (not (index .Values "kubeflow-pipelines").enabled) -}}
{{- fail "Argo would hand each run to a part of Kubeflow Pipelines that is switched off: set global.kubeflowPipelines.drivers=pods." -}}
{{- end -}}
{{- range $part := list "mlflow" "kubeflow-pipelines" -}}
{{- if (index $.Values $part).enabled -}}
{{- if not (or $store $.Values.minio.enabled) -}}
{{- fail (printf "%s needs an object store: set minio.enabled=true, or global.objectStore.external.endpoint." $part) -}}
{{- end -}}
{{- if not (or $database $.Values.mariadb.enabled) -}}
{{- fail (printf "%s needs a database: set mariadb.enabled=true, or global.database.external.host." $part) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
