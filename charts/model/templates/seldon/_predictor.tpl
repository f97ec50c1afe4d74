{{- /*
A predictor. Takes a dictionary: root, digest, service (name of its Service), traffic in percent, replicas
(without it, the SeldonDeployment's), whether it is a shadow, whether it is autoscaled, and its name, where roll-outs
are steps of the weights of two.
*/ -}}
{{- define "model.predictor" -}}
{{- $root := .root -}}
traffic: {{ .traffic }}
{{- if .shadow }}
shadow: true
{{- end }}
{{- with .replicas }}
replicas: {{ . }}
{{- end }}
# The server speaks the protocol itself. Seldon's executor beside it would add time, and Pod Security
# "restricted" refuses it; the annotation counts on the predictor only.
annotations:
  seldon.io/no-engine: "true"
  seldon.io/svc-name: {{ .service }}
progressDeadlineSeconds: 300
graph:
  name: server
  type: MODEL
  children: []
componentSpecs:
  - metadata:
      labels:
        {{- include "model.podLabels" $root | nindent 8 }}
      annotations:
        {{- include "model.podAnnotations" $root | nindent 8 }}
    {{- if .autoscaled }}
    hpaSpec:
      minReplicas: {{ $root.Values.autoscaling.minReplicas }}
      maxReplicas: {{ $root.Values.autoscaling.maxReplicas }}
      metricsv2:
        {{- include "model.metrics" $root | nindent 8 }}
    {{- end }}
    pdbSpec:
      maxUnavailable: 1
    spec:
      {{- include "model.pod" (dict "root" $root "digest" .digest "predictor" .name) | nindent 6 }}
{{- end -}}
