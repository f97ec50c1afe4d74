{{- /* The namespaces that are looked at, as JSON: the platform's and the environments'. */ -}}
{{- define "prometheus.namespaces" -}}
{{- $namespaces := list .Release.Namespace -}}
{{- range $name := keys (include "seatrial.environments" . | fromJson) | sortAlpha -}}
{{- $namespaces = append $namespaces (index (include "seatrial.environments" $ | fromJson) $name).namespace -}}
{{- end -}}
{{- $namespaces | toJson -}}
{{- end -}}
