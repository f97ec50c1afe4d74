{{- /* Labels of the pods that keep the feedback tables small: not the model's, whose Service would send requests to them. */ -}}
{{- define "model.upkeepLabels" -}}
app.kubernetes.io/name: model-upkeep
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: seatrial
{{- end -}}

{{- /* "true" where any of the jobs is wanted. */ -}}
{{- define "model.hasUpkeep" -}}
{{- if or .Values.upkeep.compact.enabled .Values.upkeep.retain.enabled }}true{{ end -}}
{{- end -}}

{{- /* A job's pod. Takes (dict "root" $ "command" NAME), a command of `seatrial feedback`. */ -}}
{{- define "model.upkeepPod" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ include "model.name" .root }}-upkeep
automountServiceAccountToken: false
enableServiceLinks: false
restartPolicy: Never
securityContext:
  {{- include "model.podSecurity" . | nindent 2 }}
containers:
  - name: {{ .command }}
    image: {{ $values.image.repository }}:{{ $values.image.tag }}
    imagePullPolicy: IfNotPresent
    command: [seatrial, feedback, {{ .command }}, {{ $values.model }}]
    # Its contract is that of the bundle which the environment serves, also where `digest` names another.
    args: [--env={{ $values.environment }}]
    env:
      - name: SEATRIAL_TRUST
        value: /etc/seatrial/trust-root
    envFrom:
      - secretRef:
          name: {{ $values.environmentSecret }}
    securityContext:
      {{- include "model.containerSecurity" . | nindent 6 }}
    resources:
      {{- toYaml $values.upkeep.resources | nindent 6 }}
    volumeMounts:
      - name: trust-root
        mountPath: /etc/seatrial/trust-root
        readOnly: true
      - name: scratch
        mountPath: /tmp
volumes:
  - name: trust-root
    configMap:
      name: {{ $values.trustRoot }}
      defaultMode: 0444
  - name: scratch
    emptyDir:
      sizeLimit: 256Mi
{{- end -}}
