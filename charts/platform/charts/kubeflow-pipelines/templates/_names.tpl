{{- /* An image of Kubeflow Pipelines, of the version that is installed. Takes (list $ IMAGE). */ -}}
{{- define "kubeflow-pipelines.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if ne $root.Values.global.kubeflowPipelines.version $root.Chart.AppVersion -}}
{{- $image = dict "repository" $image.repository "tag" $root.Values.global.kubeflowPipelines.version -}}
{{- end -}}
{{- include "seatrial.image" $image -}}
{{- end -}}

{{- /* "true" where a step may take what an earlier one left: by default only where the driver service looks at it first. */ -}}
{{- define "kubeflow-pipelines.cache" -}}
{{- if eq (toString .Values.apiServer.cache) "checked" -}}
{{- include "seatrial.driverService" . -}}
{{- else if .Values.apiServer.cache -}}
true
{{- end -}}
{{- end -}}

{{- /* Settings of the API server. They replace those within the image, which name services that are not here. */ -}}
{{- define "kubeflow-pipelines.apiServerConfig" -}}
{{- $database := .Values.database.pipelines -}}
{{- $mysql := dict
  "Host" (include "seatrial.database.host" .)
  "Port" (include "seatrial.database.port" .)
  "User" $database.user
  "DBName" $database.name
  "GroupConcatMaxLen" "4194304" -}}
{{- $store := dict
  "Host" (include "seatrial.objectStore.host" .)
  "Port" (include "seatrial.objectStore.port" .)
  "Region" .Values.global.objectStore.region
  "Secure" (include "seatrial.objectStore.secure" .)
  "BucketName" .Values.global.objectStore.buckets.pipelines
  "PipelinePath" "pipelines" -}}
{{- dict
  "DBDriverName" "mysql"
  "DBConfig" (dict "ConMaxLifeTime" "120s" "MySQLConfig" $mysql)
  "InitConnectionTimeout" "6m"
  "ObjectStoreConfig" $store
  "ARCHIVE_CONFIG_LOG_FILE_NAME" "main.log"
  "ARCHIVE_CONFIG_LOG_PATH_PREFIX" "/artifacts"
  "DEFAULTPIPELINERUNNERSERVICEACCOUNT" "pipeline-runner"
  "CacheEnabled" (toString (eq (include "kubeflow-pipelines.cache" .) "true"))
  "AUTO_UPDATE_PIPELINE_DEFAULT_VERSION" "true"
  "CRON_SCHEDULE_TIMEZONE" .Values.scheduledWorkflowController.timeZone
  | toPrettyJson -}}
{{- end -}}

{{- /* Where steps keep their artifacts, for the launcher: always said in full, since what it assumes differs by version. */ -}}
{{- define "kubeflow-pipelines.providers" -}}
minio:
  default:
    endpoint: {{ include "kubeflow-pipelines.stepsObjectStore" . }}
    region: {{ .Values.global.objectStore.region }}
    disableSSL: {{ eq (include "seatrial.objectStore.secure" .) "false" }}
    credentials:
      fromEnv: false
      secretRef:
        secretName: {{ .Values.objectStore.secret }}
        accessKeyKey: {{ .Values.objectStore.accessKey }}
        secretKeyKey: {{ .Values.objectStore.secretKey }}
{{- end -}}

{{- /* The projected token that an agent shows to the API server. Takes the file's name. */ -}}
{{- define "kubeflow-pipelines.tokenVolume" -}}
name: token
projected:
  sources:
    - serviceAccountToken: {path: {{ . }}, audience: pipelines.kubeflow.org, expirationSeconds: 3600}
{{- end -}}

{{- /* Envoy: gRPC-Web from a browser in, gRPC to the lineage out. */ -}}
{{- define "kubeflow-pipelines.envoyConfig" -}}
static_resources:
  listeners:
    - name: grpc-web
      address: {socket_address: {address: 0.0.0.0, port_value: 9090}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                codec_type: auto
                stat_prefix: grpc_web
                route_config:
                  name: lineage
                  virtual_hosts:
                    - name: lineage
                      domains: ["*"]
                      routes:
                        - match: {prefix: /}
                          route:
                            cluster: lineage
                            max_stream_duration: {grpc_timeout_header_max: 0s}
                http_filters:
                  - name: envoy.filters.http.grpc_web
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb}
                  - name: envoy.filters.http.router
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
    - name: lineage
      connect_timeout: 30s
      type: logical_dns
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}
      load_assignment:
        cluster_name: lineage
        endpoints:
          - lb_endpoints:
              - endpoint: {address: {socket_address: {address: metadata-grpc-service, port_value: 8080}}}
{{- end -}}

{{- /* Waits until database and bucket can be reached. */ -}}
{{- define "kubeflow-pipelines.waitForStores" -}}
{{- $database := printf "tcp://%s:%s" (include "seatrial.database.host" .) (include "seatrial.database.port" .) -}}
{{- $bucket := printf "s3://%s" .Values.global.objectStore.buckets.pipelines -}}
{{- include "seatrial.waitFor" (dict "root" . "addresses" (list $database $bucket) "env" (include "kubeflow-pipelines.bucketEnvironment" .)) -}}
{{- end -}}

{{- /* What a container of ours needs to look at the bucket. */ -}}
{{- define "kubeflow-pipelines.bucketEnvironment" -}}
- {name: AWS_ENDPOINT_URL, value: {{ include "seatrial.objectStore.url" . | quote }}}
- {name: AWS_REGION, value: {{ .Values.global.objectStore.region | quote }}}
- {name: AWS_ALLOW_HTTP, value: "true"}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .Values.objectStore.secret }}, key: {{ .Values.objectStore.accessKey }}}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.objectStore.secret }}, key: {{ .Values.objectStore.secretKey }}}}
{{- end -}}

{{- /* The object store as steps reach it: the chart's own by its short name, which is found with the first question. */ -}}
{{- define "kubeflow-pipelines.stepsObjectStore" -}}
{{- if .Values.global.objectStore.external.endpoint -}}
{{- printf "%s:%s" (include "seatrial.objectStore.host" .) (include "seatrial.objectStore.port" .) -}}
{{- else -}}
minio:9000
{{- end -}}
{{- end -}}
