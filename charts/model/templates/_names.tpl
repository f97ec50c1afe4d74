{{- /* Name of every object: the release's. */ -}}
{{- define "model.name" -}}
{{ .Release.Name }}
{{- end -}}

{{- /* Labels that a selector may rest on: they never change. */ -}}
{{- define "model.selector" -}}
app.kubernetes.io/name: model
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Labels of a pod. */ -}}
{{- define "model.podLabels" -}}
{{ include "model.selector" . }}
app.kubernetes.io/part-of: seatrial
seatrial.io/model: {{ .Values.model }}
{{- end -}}

{{- /* Annotations of a pod: where Prometheus finds its metrics. */ -}}
{{- define "model.podAnnotations" -}}
prometheus.io/scrape: "true"
prometheus.io/port: "9000"
prometheus.io/path: /metrics
{{- end -}}

{{- /* Labels of an object. */ -}}
{{- define "model.labels" -}}
{{ include "model.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- /* The claim of the feedback log. */ -}}
{{- define "model.claim" -}}
{{ include "model.name" . }}-feedback-log
{{- end -}}
