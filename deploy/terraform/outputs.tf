output "service_account" {
  description = "The collector's service account."
  value       = google_service_account.collector.email
}

output "bucket_uri" {
  description = "What the feed reads."
  value       = "gs://${var.bucket}/${local.prefix}/"
}

output "state" {
  description = "The state object."
  value       = "gs://${local.state_bucket}/${local.state_folder}/state.json"
}

output "force_run" {
  description = "Runs it now, as \"Force run\" in the console does."
  value       = "gcloud scheduler jobs run ${google_cloud_scheduler_job.hourly.name} --project=${var.project} --location=${var.region}"
}

output "logs" {
  description = "Shows the last runs' entries."
  value       = "gcloud logging read 'resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}\"' --project=${var.project} --freshness=1h --limit=50 --format='value(timestamp, severity, jsonPayload.message)'"
}
