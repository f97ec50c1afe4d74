{{- /* The namespaces that are looked at, as JSON: the platform's and the environments'. */ -}}
{{- define "prometheus.namespaces" -}}
{{- $namespaces := list .Release.Namespace -}}
{{- range $name := keys .Values.global.environments | sortAlpha -}}
{{- $namespaces = append $namespaces (index $.Values.global.environments $name).namespace -}}
{{- end -}}
{{- $namespaces | toJson -}}
{{- end -}}
