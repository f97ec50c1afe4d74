{{- /* An image of Argo, of the version that goes with that of Kubeflow Pipelines. Takes (list $ IMAGE). */ -}}
{{- define "argo-workflows.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if include "seatrial.newerPipelines" $root -}}
{{- $image = dict "repository" $image.repository "tag" "v4.0.5" -}}
{{- end -}}
{{- include "seatrial.image" $image -}}
{{- end -}}

{{- /* Security context of the containers of a step: as seatrial.containerSecurity, but a step may write where its image lets it. */ -}}
{{- define "argo-workflows.stepSecurity" -}}
{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
{{- end -}}

{{- /* The same for Argo's own two containers, whose image is root's. Kubeflow Pipelines 2.17.0 leaves the pod's user open. */ -}}
{{- define "argo-workflows.executorSecurity" -}}
{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, runAsNonRoot: true, runAsUser: {{ .Values.steps.runAsUser }}}
{{- end -}}

{{- /*
The patch of every pod of a run, as an expression of Argo's. It reaches what no other setting does: the
container that hands a step its launcher, and the resources of the driver, both written by Kubeflow
Pipelines. A patch of a container that a pod does not have would add one, so it depends on the pod's name.
Argo's own container comes first otherwise, looks whether the work has ended before it can have begun, and looks
again a second later: the work comes first, so that what is short has ended by then.
No two braces may close at once: they would end the expression.
*/ -}}
{{- define "argo-workflows.podSpecPatch" -}}
{{- $security := include "argo-workflows.stepSecurity" . | fromYaml -}}
{{- $launcher := dict "name" "kfp-launcher" "securityContext" $security "resources" .Values.steps.launcher.resources -}}
{{- $driver := dict "name" "main" "resources" .Values.steps.driver.resources -}}
{{- $order := list (dict "name" "main") (dict "name" "wait") -}}
{{- $stepPod := dict "initContainers" (list $launcher) "$setElementOrder/containers" $order -}}
{{- if include "seatrial.newerPipelines" . -}}
{{- /* It writes a security context of the pod of its own, in which that of workflowDefaults is lost, and with it who may write to volumes. */ -}}
{{- $ignored := set $stepPod "securityContext" (dict "fsGroup" .Values.steps.runAsUser) -}}
{{- end -}}
{{- $step := $stepPod | toJson | replace "}" "} " -}}
{{- $driverPod := dict "containers" (list $driver) "$setElementOrder/containers" $order | toJson | replace "}" "} " -}}
{{ printf "{{=pod.name contains 'system-container-impl-' ? '%s' : pod.name contains 'system-container-driver-' || pod.name contains 'system-dag-driver-' ? '%s' : '{ }'}}" $step $driverPod }}
{{- end -}}

{{- /* What holds for every workflow, unless it says otherwise. */ -}}
{{- define "argo-workflows.workflowDefaults" -}}
spec:
  {{- /* Alone, this chart has nobody who would let a run go. */}}
  {{- if and (include "seatrial.driverService" .) (not .Chart.IsRoot) }}
  # Until the driver service of Kubeflow Pipelines has seen the run, and lets it go.
  suspend: true
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ .Values.steps.runAsUser }}
    fsGroup: {{ .Values.steps.runAsUser }}
    seccompProfile: {type: RuntimeDefault}
  podMetadata:
    labels:
      {{- include "argo-workflows.stepSelector" . | nindent 6 }}
      app.kubernetes.io/part-of: seatrial
      {{- with .Values.steps.access }}
      {{- include "seatrial.access" . | nindent 6 }}
      {{- end }}
  podSpecPatch: {{ include "argo-workflows.podSpecPatch" . | quote }}
  ttlStrategy:
    secondsAfterCompletion: {{ .Values.retention.secondsAfterCompletion }}
  {{- with .Values.steps.dnsOptions }}
  dnsConfig:
    options:
      {{- range . }}
      - {name: {{ . }}}
      {{- end }}
  {{- end }}
  {{- with .Values.steps.retries }}
  {{- if .limit }}
  # Of the workflow, not of each template: a step that its pipeline retries keeps the pipeline's own strategy.
  retryStrategy:
    limit: {{ .limit | quote }}
    retryPolicy: OnTransientError
    backoff: {duration: {{ .delay | quote }}, factor: {{ .factor | quote }}}
  {{- end }}
  {{- end }}
{{- end -}}

{{- /*
What in the message of a failed pod says that the step is not to blame: what a node does to its pods, a pod that was
killed or ran out of memory, a service of the platform that did not answer (in the words of gRPC and of Go; the
launcher of 2.14.3 says nothing of it and falls over its own clean-up, before the step's code has begun; of our own
steps in theirs), and that Argo's own container died beside the step: the end of a log follows the code of any other.
*/ -}}
{{- define "argo-workflows.transientErrors" -}}
(?i)pod deleted|evict|preempt|low on resource|node is shutting down|imminent node shutdown|OOMKilled|exit code (137|143)\)|code = (Unavailable|DeadlineExceeded)|dial tcp|\(\*LauncherV2\)\.publish|^Error \(exit code [0-9]+\)$|The store( of \S+)? failed while|MLflow at \S+ cannot be used
{{- end -}}

{{- /* The object store as steps reach it: the chart's own by its short name, which is found with the first question. */ -}}
{{- define "argo-workflows.objectStore" -}}
{{- if .Values.global.objectStore.external.endpoint -}}
{{- printf "%s:%s" (include "seatrial.objectStore.host" .) (include "seatrial.objectStore.port" .) -}}
{{- else -}}
minio:9000
{{- end -}}
{{- end -}}

{{- /* Labels of the pods of runs, which network policies select them by. */ -}}
{{- define "argo-workflows.stepSelector" -}}
{{ include "seatrial.selector" (list . "pipeline-step") }}
{{- end -}}
