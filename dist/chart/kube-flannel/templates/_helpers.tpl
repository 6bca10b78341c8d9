{{/* labels of everything */}}
{{- define "flannel.labels" -}}
k8s-app: flannel
{{- end }}

{{/* labels of what belongs to the pods; the selector of a DaemonSet cannot change */}}
{{- define "flannel.podLabels" -}}
app: flannel
tier: node
{{- end }}

{{- define "flannel.image" -}}
{{- $i := .Values.flannel.image -}}
image: {{ printf "%s:%s%s" $i.repository $i.tag (ternary "-iptables" "" $i.iptables) | quote }}
imagePullPolicy: {{ $i.pullPolicy }}
{{- end }}

{{/* what an init container may do: the folders of CNI may have another owner
     than root */}}
{{- define "flannel.installRights" -}}
securityContext:
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add: [DAC_OVERRIDE]
{{- end }}

{{/* the backend's object in net-conf.json, as JSON */}}
{{- define "flannel.backend" -}}
{{- $f := .Values.flannel }}
{{- $keys := dict
  "vxlan" (dict "Port" $f.backendPort "MTU" $f.mtu "VNI" $f.vni "GBP" $f.GBP "DirectRouting" $f.directRouting)
  "udp" (dict "Port" $f.backendPort)
}}
{{- $out := dict "Type" $f.backend }}
{{- range $key, $value := get $keys (lower $f.backend) | default dict }}
{{- if $value }}
{{- $_ := set $out $key $value }}
{{- end }}
{{- end }}
{{- merge $out ($f.backendOptions | default dict) | toJson }}
{{- end }}

{{/* net-conf.json */}}
{{- define "flannel.netConf" -}}
{{- $out := dict "EnableNFTables" .Values.flannel.enableNFTables "Backend" (include "flannel.backend" . | fromJson) }}
{{- if .Values.podCidr }}
{{- $_ := set $out "Network" .Values.podCidr }}
{{- else }}
{{- $_ := set $out "EnableIPv4" false }}
{{- end }}
{{- if .Values.podCidrv6 }}
{{- $_ := set $out "EnableIPv6" true }}
{{- $_ := set $out "IPv6Network" .Values.podCidrv6 }}
{{- end }}
{{- $out | toPrettyJson }}
{{- end }}

{{/* not empty if Prometheus is to find the port of /metrics by its name */}}
{{- define "flannel.monitored" -}}
{{- $f := .Values.flannel -}}
{{- if or $f.podMonitor.enabled $f.serviceMonitor.enabled }}
{{- if not $f.healthz.port }}{{ fail "flannel.podMonitor and flannel.serviceMonitor need flannel.healthz.port" }}{{ end -}}
true
{{- end }}
{{- end }}
