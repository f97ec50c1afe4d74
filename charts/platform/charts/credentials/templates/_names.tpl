{{- /* Which Secrets there shall be, as JSON: seatrial.cluster_setup.credentials.Plan. */ -}}
{{- define "credentials.plan" -}}
{{- include "credentials.check" . -}}
{{- $environments := dict -}}
{{- range $name, $environment := (include "seatrial.environments" . | fromJson) -}}
{{- $_ := set $environments $name (pick $environment "namespace" "workspace") -}}
{{- end -}}
{{- $plan := dict
  "namespace" .Release.Namespace
  "minio" (empty .Values.global.objectStore.external.endpoint)
  "mariadb" (empty .Values.global.database.external.host)
  "endpoint" (include "seatrial.objectStore.url" .)
  "region" .Values.global.objectStore.region
  "mlflow" (printf "http://mlflow.%s.svc:5000" .Release.Namespace)
  "environments" $environments -}}
{{- $plan | toJson -}}
{{- end -}}

{{- /* Refuses environments that share a namespace or lie within each other's workspace. */ -}}
{{- define "credentials.check" -}}
{{- range $name, $one := (include "seatrial.environments" . | fromJson) -}}
{{- if eq $one.namespace $.Release.Namespace -}}
{{- fail (printf "global.environments.%s.namespace must not be the platform's own, %s: models would reach its Secrets." $name $one.namespace) -}}
{{- end -}}
{{- range $other, $two := (include "seatrial.environments" $ | fromJson) -}}
{{- if ne $name $other -}}
{{- if eq $one.namespace $two.namespace -}}
{{- fail (printf "The environments %s and %s share the namespace %s; each needs its own." $name $other $one.namespace) -}}
{{- end -}}
{{- if hasPrefix (printf "%s/" $one.workspace) (printf "%s/" $two.workspace) -}}
{{- fail (printf "The workspace of the environment %s, %s, lies within that of %s, %s; each needs its own." $other $two.workspace $name $one.workspace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Names of the Secrets that may be read: those that the plan can ask for, and no others. */ -}}
{{- define "credentials.secrets" -}}
{{- $names := list "minio-root" "mariadb" "mlpipeline-minio-artifact" "mlflow-object-store" -}}
{{- range $name := keys (include "seatrial.environments" . | fromJson) | sortAlpha -}}
{{- $names = concat $names (list (printf "environment-%s" $name) (printf "signing-key-%s" $name) (printf "privacy-key-%s" $name)) -}}
{{- end -}}
{{- $names | toJson -}}
{{- end -}}

{{- /* Names of the trust roots, one an environment. */ -}}
{{- define "credentials.trustRoots" -}}
{{- $names := list -}}
{{- range $name := keys (include "seatrial.environments" . | fromJson) | sortAlpha -}}
{{- $names = append $names (printf "trust-root-%s" $name) -}}
{{- end -}}
{{- $names | toJson -}}
{{- end -}}

{{- /* A hook that runs before the other objects are made or changed. Takes its weight. */ -}}
{{- define "credentials.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- /* A Job's pod. Takes (dict "root" $ "name" NAME "action" ACTION). */ -}}
{{- define "credentials.pod" -}}
metadata:
  labels:
    {{- include "seatrial.podLabels" (list .root .name) | nindent 4 }}
spec:
  serviceAccountName: {{ .name }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  restartPolicy: Never
  securityContext:
    {{- include "seatrial.podSecurity" 1000 | nindent 4 }}
  containers:
    - name: credentials
      image: {{ include "seatrial.image" .root.Values.global.serverImage }}
      imagePullPolicy: {{ .root.Values.global.imagePullPolicy }}
      command: [python, -m, seatrial.cluster_setup.credentials]
      args: [{{ .action }}, {{ include "credentials.plan" .root | squote }}]
      securityContext:
        {{- include "seatrial.containerSecurity" . | nindent 8 }}
      resources:
        {{- toYaml .root.Values.resources | nindent 8 }}
      volumeMounts:
        - {name: scratch, mountPath: /tmp}
  volumes:
    - name: scratch
      emptyDir: {}
{{- end -}}
