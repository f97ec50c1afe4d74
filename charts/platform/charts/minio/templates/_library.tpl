{{- /*
What all charts of the platform share: labels, security, images, network edges, addresses.

This file is written once, in charts/platform/templates, and `python tools/write_chart_library.py`
copies it into each subchart, so that each can be installed alone; a test compares the copies.
*/ -}}

{{- /* Labels of an object. Takes (list $ NAME), where NAME is the component's, such as "minio". */ -}}
{{- define "seatrial.labels" -}}
{{- $root := index . 0 -}}
{{ include "seatrial.podLabels" . }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- /* Labels of a pod template: none that a new version of the chart changes, so that an upgrade starts only what changed. */ -}}
{{- define "seatrial.podLabels" -}}
{{ include "seatrial.selector" . }}
app.kubernetes.io/part-of: seatrial
{{- end -}}

{{- /* Labels that a selector may rest on: they never change. Takes (list $ NAME). */ -}}
{{- define "seatrial.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end -}}

{{- /* Labels that let a pod reach services of the platform. Takes their names: (list "minio" "mlflow"). */ -}}
{{- define "seatrial.access" -}}
{{- range $index, $service := . -}}
{{- if $index }}
{{ end -}}
access.seatrial.io/{{ $service }}: "true"
{{- end -}}
{{- end -}}

{{- /* An image's reference. Takes a value of the form {repository, tag}. */ -}}
{{- define "seatrial.image" -}}
{{ required "an image needs a repository" .repository }}:{{ required (printf "the image %s needs a tag" .repository) .tag }}
{{- end -}}

{{- /* "true" for the newer of the two versions of Kubeflow Pipelines, which wants other settings. Takes $. */ -}}
{{- define "seatrial.newerPipelines" -}}
{{- if eq .Values.global.kubeflowPipelines.version "2.17.0" }}true{{ end -}}
{{- end -}}

{{- /* "true" where one process decides for the steps of all runs, and Argo hands it each new run. Takes $. */ -}}
{{- define "seatrial.driverService" -}}
{{- if eq .Values.global.kubeflowPipelines.drivers "service" }}true{{ end -}}
{{- end -}}

{{- /* Security context of a pod, as Pod Security "restricted" wants it. Takes the numeric user. */ -}}
{{- define "seatrial.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* Security context of a container: nothing may be gained, and nothing but volumes is written to. */ -}}
{{- define "seatrial.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /*
A container that waits until something answers, and says every few seconds what it waits for; so
that nothing crashes and is started again while the platform comes up. Takes a dictionary:
  root       $
  addresses  what is waited for, in this order: tcp://HOST:PORT, http://..., grpc://HOST:PORT/SERVICE/METHOD, or s3://BUCKET
  env        environment variables, as YAML (for s3: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)
*/ -}}
{{- define "seatrial.waitFor" -}}
name: wait
image: {{ include "seatrial.image" .root.Values.global.serverImage }}
imagePullPolicy: {{ .root.Values.global.imagePullPolicy }}
command: [python, -m, seatrial.cluster_setup.wait]
args: {{ .addresses | toJson }}
{{- with .env }}
env:
  {{- . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "seatrial.containerSecurity" . | nindent 2 }}
resources:
  requests: {cpu: 5m, memory: 64Mi}
  limits: {memory: 192Mi}
{{- end -}}

{{- /*
The peers of an ingress rule: pods of this namespace that carry access.seatrial.io/NAME.
Takes (list NAME) or (list NAME true): with true also all pods of the environments' namespaces.
*/ -}}
{{- define "seatrial.clientsOf" -}}
- podSelector:
    matchLabels:
      {{- include "seatrial.access" (list (index . 0)) | nindent 6 }}
{{- if gt (len .) 1 }}
- namespaceSelector:
    matchExpressions:
      - {key: seatrial.io/environment, operator: Exists}
{{- end }}
{{- end -}}

{{- /* The peers of an ingress rule for the port that metrics are scraped from: this release's Prometheus. */ -}}
{{- define "seatrial.prometheus" -}}
- podSelector:
    matchLabels:
      {{- include "seatrial.selector" (list . "prometheus") | nindent 6 }}
{{- end -}}

{{- /* An egress rule: names are resolved. Without it, nothing is reached by its name. */ -}}
{{- define "seatrial.egressToDns" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}

{{- /* An egress rule: the Kubernetes API, whose address no selector can name. Takes $. */ -}}
{{- define "seatrial.egressToKubernetesApi" -}}
- ports:
    {{- range .Values.global.networkPolicies.kubernetesApiPorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end -}}

{{- /* The object store's address, of the chart's MinIO or the external one. Takes $. */ -}}
{{- define "seatrial.objectStore.url" -}}
{{- .Values.global.objectStore.external.endpoint | default (printf "http://minio.%s.svc:9000" .Release.Namespace) -}}
{{- end -}}

{{- /* Its host without the port. */ -}}
{{- define "seatrial.objectStore.host" -}}
{{- (splitList ":" (urlParse (include "seatrial.objectStore.url" .)).host) | first -}}
{{- end -}}

{{- /* Its port. */ -}}
{{- define "seatrial.objectStore.port" -}}
{{- $url := urlParse (include "seatrial.objectStore.url" .) -}}
{{- $parts := splitList ":" $url.host -}}
{{- if gt (len $parts) 1 }}{{ last $parts }}{{ else if eq $url.scheme "https" }}443{{ else }}80{{ end -}}
{{- end -}}

{{- /* "true" where it speaks TLS, else "false". */ -}}
{{- define "seatrial.objectStore.secure" -}}
{{- eq (urlParse (include "seatrial.objectStore.url" .)).scheme "https" -}}
{{- end -}}

{{- /* The database's host, of the chart's MariaDB or the external one, for pods of the release's namespace. Its short name: a longer one is asked for
three times, and a name server that is busy answers the last question late, which Go then calls "no such host". Takes $. */ -}}
{{- define "seatrial.database.host" -}}
{{- .Values.global.database.external.host | default "mariadb" -}}
{{- end -}}

{{- /* Its port. */ -}}
{{- define "seatrial.database.port" -}}
{{- if .Values.global.database.external.host }}{{ .Values.global.database.external.port }}{{ else }}3306{{ end -}}
{{- end -}}

{{- /* Where Argo keeps the log of a step, below the bucket of the pipelines, and where the page of Kubeflow Pipelines looks for it. */ -}}
{{- define "seatrial.logKeyFormat" -}}
artifacts/{{`{{workflow.name}}`}}/{{`{{workflow.creationTimestamp.Y}}`}}/{{`{{workflow.creationTimestamp.m}}`}}/{{`{{workflow.creationTimestamp.d}}`}}/{{`{{pod.name}}`}}
{{- end -}}

{{- /*
The environments that are wanted, as JSON. One is taken away by `enabled: false`, since helm brings a default
back that a user has set to null. Takes $.
*/ -}}
{{- define "seatrial.environments" -}}
{{- $wanted := dict -}}
{{- range $name, $environment := .Values.global.environments -}}
{{- if ne (toString $environment.enabled) "false" -}}
{{- $_ := set $wanted $name (omit $environment "enabled") -}}
{{- end -}}
{{- end -}}
{{- $wanted | toJson -}}
{{- end -}}
