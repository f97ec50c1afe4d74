{{- /* The Secrets that the set-up Job reads: name of the user in the object store, Secret, and its two keys. */ -}}
{{- define "minio.credentials" -}}
{{- $secrets := list
  (dict "user" "root" "secret" .Values.rootSecret "accessKey" "user" "secretKey" "password")
  (dict "user" "pipelines" "secret" "mlpipeline-minio-artifact" "accessKey" "accesskey" "secretKey" "secretkey")
  (dict "user" "mlflow" "secret" "mlflow-object-store" "accessKey" "AWS_ACCESS_KEY_ID" "secretKey" "AWS_SECRET_ACCESS_KEY") -}}
{{- range $name := keys (include "seatrial.environments" . | fromJson) | sortAlpha -}}
{{- $secret := printf "environment-%s" $name -}}
{{- $secrets = append $secrets (dict "user" $secret "secret" $secret "accessKey" "AWS_ACCESS_KEY_ID" "secretKey" "AWS_SECRET_ACCESS_KEY") -}}
{{- end -}}
{{- $secrets | toJson -}}
{{- end -}}

{{- /* What the set-up Job shall see to, as JSON: seatrial.cluster_setup.object_store.Plan. */ -}}
{{- define "minio.plan" -}}
{{- $store := .Values.global.objectStore -}}
{{- $retention := .Values.retention -}}
{{- $expiry := int $retention.oldVersionsDays -}}
{{- $buckets := list
  (dict "name" $store.buckets.pipelines "old_versions_days" $expiry)
  (dict "name" $store.buckets.mlflow "old_versions_days" $expiry) -}}
{{- $users := list
  (dict "name" "pipelines" "grants" (list (dict "bucket" $store.buckets.pipelines "access" "full")))
  (dict "name" "mlflow" "grants" (list (dict "bucket" $store.buckets.mlflow "access" "full"))) -}}
{{- $workspaces := list -}}
{{- range $name := keys (include "seatrial.environments" . | fromJson) | sortAlpha -}}
{{- $address := urlParse (index (include "seatrial.environments" $ | fromJson) $name).workspace -}}
{{- $workspaces = append $workspaces $address.host -}}
{{- $users = append $users (dict "name" (printf "environment-%s" $name) "grants" (list
  (dict "bucket" $address.host "prefix" (trimAll "/" $address.path) "access" "full")
  (dict "bucket" $store.buckets.mlflow "access" "append"))) -}}
{{- end -}}
{{- range $workspaces | uniq -}}
{{- $buckets = append $buckets (dict "name" . "lock_days" (int $retention.lockDays) "old_versions_days" $expiry) -}}
{{- end -}}
{{- dict "endpoint" (include "seatrial.objectStore.url" .) "region" $store.region "buckets" $buckets "users" $users | toJson -}}
{{- end -}}
