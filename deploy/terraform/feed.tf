resource "google_chronicle_feed" "this" {
  count = var.feed == null ? 0 : 1

  project      = local.feed_project
  location     = var.feed.location
  instance     = var.feed.instance
  display_name = var.name

  details {
    feed_source_type = "GOOGLE_CLOUD_STORAGE_V2"
    log_type         = "projects/${local.feed_project}/locations/${var.feed.location}/instances/${var.feed.instance}/logTypes/OPENAI_AUDITLOG"

    gcs_v2_settings {
      bucket_uri             = "gs://${var.bucket}/${local.prefix}/"
      source_deletion_option = var.feed_deletes ? "ON_SUCCESS" : "NEVER"
    }
  }
  depends_on = [google_project_service.this, google_storage_bucket.logs]
}

locals {
  feed_project = var.feed == null ? null : coalesce(var.feed.project, var.project)
  # Whom the feed reads the bucket as.
  feed_readers = var.feed_reader != null ? [var.feed_reader] : google_chronicle_feed.this[*].details[0].gcs_v2_settings[0].chronicle_service_account
  feed_roles = toset([
    "roles/storage.objectViewer",
    var.feed_deletes ? "roles/storage.legacyBucketWriter" : "roles/storage.legacyBucketReader",
  ])
}

resource "google_storage_bucket_iam_member" "feed" {
  for_each = var.feed_reader == null && var.feed == null ? [] : local.feed_roles

  bucket     = var.bucket
  role       = each.key
  member     = "serviceAccount:${local.feed_readers[0]}"
  depends_on = [google_storage_bucket.logs]
}
