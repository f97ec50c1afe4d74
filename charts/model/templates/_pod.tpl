{{- /*
The pod, which is the same for both engines. Takes (dict "root" $ "digest" DIGEST), and "predictor" with a name where
a mesh splits the requests of a roll-out between two.
Seldon's operator knows the fields of Kubernetes 1.24 only: a newer one, such as preStop.sleep, gets lost.
*/ -}}
{{- define "model.pod" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ include "model.name" .root }}
automountServiceAccountToken: false
# Draining, then the requests that are being answered, then a last move of the log into the tables.
terminationGracePeriodSeconds: {{ add $values.drainSeconds 60 }}
securityContext:
  {{- include "model.podSecurity" . | nindent 2 }}
{{- if not .digest }}
initContainers:
  # A model can be installed before anything was trained: its pods wait, and say so in their log.
  - name: wait-for-bundle
    image: {{ $values.image.repository }}:{{ $values.image.tag }}
    imagePullPolicy: IfNotPresent
    command: [seatrial, wait, {{ $values.model }}]
    args: [--env={{ $values.environment }}]
    envFrom:
      - secretRef:
          name: {{ $values.environmentSecret }}
    securityContext:
      {{- include "model.containerSecurity" . | nindent 6 }}
    resources:
      requests: {cpu: 10m, memory: 64Mi}
      limits: {memory: 256Mi}
    volumeMounts:
      - name: scratch
        mountPath: /tmp
{{- end }}
containers:
  - name: server
    image: {{ $values.image.repository }}:{{ $values.image.tag }}
    imagePullPolicy: IfNotPresent
    command: [seatrial, serve, {{ $values.model }}]
    args:
      - --host=0.0.0.0
      - --port=9000
      {{- if $values.grpc }}
      - --grpc-port=9500
      {{- end }}
      {{- if .digest }}
      - --bundle=$(BUNDLE)
      {{- else }}
      - --env={{ $values.environment }}
      {{- end }}
      {{- with .predictor }}
      - --predictor={{ . }}
      {{- end }}
      - --log-folder=/var/lib/seatrial/feedback-log/$(POD_NAME)
      - --collect-logs
      - --drain={{ $values.drainSeconds }}
      - --ship-every={{ $values.feedbackLog.shipEverySeconds }}
    env:
      - name: POD_NAME
        valueFrom:
          fieldRef:
            apiVersion: v1
            fieldPath: metadata.name
      {{- if .digest }}
      - name: BUNDLE
        value: {{ .digest | quote }}
      {{- end }}
      - name: SEATRIAL_TRUST
        value: /etc/seatrial/trust-root
      - name: SEATRIAL_PRIVACY_KEY
        value: /etc/seatrial/privacy-key/privacy-key
      {{- with $values.traces.endpoint }}
      - name: OTEL_EXPORTER_OTLP_ENDPOINT
        value: {{ . | quote }}
      - name: OTEL_SERVICE_NAME
        value: {{ include "model.name" $.root }}
      - name: OTEL_TRACES_SAMPLER
        value: parentbased_traceidratio
      - name: OTEL_TRACES_SAMPLER_ARG
        value: {{ $values.traces.share | quote }}
      {{- end }}
    envFrom:
      - secretRef:
          name: {{ $values.environmentSecret }}
    ports:
      - name: http
        containerPort: 9000
        protocol: TCP
      {{- if $values.grpc }}
      - name: grpc
        containerPort: 9500
        protocol: TCP
      {{- end }}
    # Loading takes seconds, and whoever waits for a roll-out waits for this probe.
    startupProbe:
      httpGet: {path: /v2/health/live, port: 9000, scheme: HTTP}
      periodSeconds: 1
      timeoutSeconds: 2
      successThreshold: 1
      failureThreshold: 120
    readinessProbe:
      httpGet: {path: /v2/health/ready, port: 9000, scheme: HTTP}
      periodSeconds: 2
      timeoutSeconds: 2
      successThreshold: 1
      failureThreshold: 3
    livenessProbe:
      httpGet: {path: /v2/health/live, port: 9000, scheme: HTTP}
      periodSeconds: 10
      timeoutSeconds: 5
      successThreshold: 1
      failureThreshold: 6
    # The server drains by itself. Without a hook, Seldon's operator would add one that only waits.
    lifecycle:
      preStop:
        exec:
          command: ["true"]
    securityContext:
      {{- include "model.containerSecurity" . | nindent 6 }}
    resources:
      {{- toYaml $values.resources | nindent 6 }}
    volumeMounts:
      - name: feedback-log
        mountPath: /var/lib/seatrial/feedback-log
      - name: trust-root
        mountPath: /etc/seatrial/trust-root
        readOnly: true
      - name: privacy-key
        mountPath: /etc/seatrial/privacy-key
        readOnly: true
      - name: scratch
        mountPath: /tmp
volumes:
  - name: feedback-log
    {{- if eq $values.feedbackLog.volume "claim" }}
    persistentVolumeClaim:
      claimName: {{ include "model.claim" .root }}
    {{- else }}
    emptyDir:
      sizeLimit: {{ $values.feedbackLog.size }}
    {{- end }}
  - name: trust-root
    configMap:
      name: {{ $values.trustRoot }}
      defaultMode: 0444
  # Only a model that hashes private fields reads it, and without it ends with words that say what is missing.
  - name: privacy-key
    secret:
      secretName: {{ $values.privacyKeySecret }}
      defaultMode: 0440
      optional: true
  - name: scratch
    emptyDir:
      sizeLimit: 256Mi
{{- end -}}

{{- /* What an autoscaler looks at. */ -}}
{{- define "model.metrics" -}}
- type: Resource
  resource:
    name: cpu
    target:
      type: Utilization
      averageUtilization: {{ .Values.autoscaling.cpuPercent }}
{{- end -}}

{{- /* Security context of a pod, as Pod Security "restricted" wants it. */ -}}
{{- define "model.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* Security context of a container: nothing may be gained, and nothing but volumes is written to. */ -}}
{{- define "model.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
