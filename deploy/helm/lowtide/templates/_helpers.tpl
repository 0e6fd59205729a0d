{{- define "lowtide.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "lowtide.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
app.kubernetes.io/name: lowtide
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{/* The labels by which a part's pods are found: call with a list of the root and the part's name. */}}
{{- define "lowtide.selector" -}}
app.kubernetes.io/name: lowtide
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "lowtide.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{ .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create -}}
{{ include "lowtide.name" . }}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{/* What all pods have in common: everything of a pod but its container's own part. */}}
{{- define "lowtide.pod" -}}
serviceAccountName: {{ include "lowtide.serviceAccount" . }}
automountServiceAccountToken: false
# Variables of services, such as LOWTIDE_METRICS_PORT, would look like settings.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
volumes:
  - name: secrets
    secret:
      secretName: {{ .Values.existingSecret | quote }}
      defaultMode: 0440
  - name: tmp
    emptyDir: {}
  {{- if not .Values.spool.url }}
  - name: spool
    persistentVolumeClaim:
      claimName: {{ .Values.spool.volume.existingClaim | default (printf "%s-spool" (include "lowtide.name" .)) | quote }}
  {{- end }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "lowtide.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
envFrom:
  - configMapRef:
      name: {{ include "lowtide.name" . }}
  {{- with .Values.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - name: secrets
    mountPath: /run/lowtide/secrets
    readOnly: true
  - name: tmp
    mountPath: /tmp
  {{- if not .Values.spool.url }}
  - name: spool
    mountPath: /var/lib/lowtide/spool
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
