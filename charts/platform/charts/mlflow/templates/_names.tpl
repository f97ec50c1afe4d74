{{- /*
The Host headers that MLflow answers to, so that no web page can reach it by a name of its own (DNS rebinding):
its names in the cluster, and localhost, which is what a port-forward shows.
*/ -}}
{{- define "mlflow.allowedHosts" -}}
{{- $namespace := .Release.Namespace -}}
{{- $names := list "mlflow" (printf "mlflow.%s" $namespace) (printf "mlflow.%s.svc" $namespace) (printf "mlflow.%s.svc.cluster.local" $namespace) -}}
{{- $hosts := list "localhost:*" "127.0.0.1:*" -}}
{{- range $names -}}
{{- $hosts = append $hosts (printf "%s:5000" .) -}}
{{- end -}}
{{- join "," (concat $hosts .Values.extraAllowedHosts) -}}
{{- end -}}

{{- /* Where runs and versions are kept, and by whom; the password is taken from the Secret. */ -}}
{{- define "mlflow.databaseEnv" -}}
- name: MLFLOW_DATABASE_PASSWORD
  valueFrom: {secretKeyRef: {name: mariadb, key: mlflow-password}}
- name: MLFLOW_BACKEND_STORE_URI
  value: mysql+pymysql://mlflow:$(MLFLOW_DATABASE_PASSWORD)@{{ include "seatrial.database.host" . }}:{{ include "seatrial.database.port" . }}/mlflow
{{- end -}}

{{- /* Where artifacts are kept, and by whom. */ -}}
{{- define "mlflow.objectStoreEnv" -}}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: mlflow-object-store, key: {{ . }}}}
{{- end }}
- {name: AWS_ENDPOINT_URL, value: {{ include "seatrial.objectStore.url" . }}}
- {name: MLFLOW_S3_ENDPOINT_URL, value: {{ include "seatrial.objectStore.url" . }}}
- {name: AWS_REGION, value: {{ .Values.global.objectStore.region }}}
{{- end -}}
