{{- /* Name of every object: the release's and what it is. */ -}}
{{- define "serving.name" -}}
{{ .Release.Name }}-seldon-operator
{{- end -}}

{{- /* Labels that a selector may rest on: they never change. */ -}}
{{- define "serving.selector" -}}
app.kubernetes.io/name: seldon-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Labels of a pod. */ -}}
{{- define "serving.podLabels" -}}
{{ include "serving.selector" . }}
app.kubernetes.io/part-of: seatrial
{{- end -}}

{{- /* Labels of an object. */ -}}
{{- define "serving.labels" -}}
{{ include "serving.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- /* Security context of a container: nothing may be gained, and nothing but volumes is written to. */ -}}
{{- define "serving.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
