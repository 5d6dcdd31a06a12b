output "bucket_uri" {
  description = "What the feed reads."
  value       = "gs://${var.bucket}/${local.prefix}/"
}

output "force_run" {
  description = "Runs it now, as \"Force run\" in the console does."
  value       = "gcloud scheduler jobs run ${google_cloud_scheduler_job.this.name} --project=${var.project} --location=${var.region}"
}

output "logs" {
  description = "Shows the last runs' entries."
  value       = "gcloud logging read 'resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}\"' --project=${var.project} --freshness=1h --limit=50 --format='value(timestamp, severity, jsonPayload.message)'"
}

output "check" {
  description = "Lets the function check itself: settings, key, bucket, roles and state. Then shows what it has found."
  value       = <<-EOT
    gcloud pubsub topics publish ${local.topic} --project=${var.project} --message='{"check": true}'
    gcloud logging read 'resource.labels.service_name="${var.name}" AND jsonPayload.message:"Check "' --project=${var.project} --freshness=10m --format='value(severity, jsonPayload.message, jsonPayload.remedy)'
  EOT
}

output "feed_reader" {
  description = "E-mail address of the feed's service account; null without one."
  value       = one(local.feed_readers)
}

output "settings" {
  description = "The function's settings as a file for auditlog --env-file: terraform output -raw settings > auditlog.env"
  value       = join("", [for name, value in local.settings : "${name}=\"${value}\"\n"])
}
