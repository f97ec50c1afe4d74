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
{{ include "model.origin" . }}
{{- end -}}

{{- /* The claim of the feedback log. */ -}}
{{- define "model.claim" -}}
{{ include "model.name" . }}-feedback-log
{{- end -}}

{{- /* Rules of a NetworkPolicy: names are resolved, and the object store is reached. */ -}}
{{- define "model.egressToStore" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- with .Values.network.objectStore }}
{{- if .namespace }}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .namespace }}
      podSelector:
        matchLabels:
          app.kubernetes.io/name: minio
  ports:
    - {protocol: TCP, port: {{ .port }}}
{{- end }}
{{- if .externalCidr }}
- to:
    - ipBlock:
        cidr: {{ .externalCidr }}
  ports:
    - {protocol: TCP, port: {{ .port }}}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Labels that say who made an object, and of which version. */ -}}
{{- define "model.origin" -}}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- /* Labels of the pods of the job that leads roll-outs on: no Service selects them. */ -}}
{{- define "model.rollOutSelector" -}}
app.kubernetes.io/name: roll-out
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
