resource "google_chronicle_feed" "this" {
  count = var.feed == null ? 0 : 1

  project      = local.feed_project
  location     = var.feed.location
  instance     = var.feed.instance
  display_name = coalesce(var.feed.display_name, var.name)

  details {
    feed_source_type = "GOOGLE_CLOUD_STORAGE_V2"
    log_type         = "projects/${local.feed_project}/locations/${var.feed.location}/instances/${var.feed.instance}/logTypes/OPENAI_AUDITLOG"
    asset_namespace  = var.feed.asset_namespace
    labels           = var.feed.labels

    gcs_v2_settings {
      bucket_uri             = "gs://${var.bucket}/${local.prefix}/"
      source_deletion_option = var.feed_deletes ? "ON_SUCCESS" : "NEVER"
      max_lookback_days      = var.feed.max_lookback_days
    }
  }
  depends_on = [google_project_service.this, google_storage_bucket.logs]
}

locals {
  feed_project = var.feed == null ? null : coalesce(var.feed.project, var.project)
  # The account that the feed reads the bucket with.
  feed_readers = var.feed_reader != null ? [var.feed_reader] : google_chronicle_feed.this[*].details[0].gcs_v2_settings[0].chronicle_service_account
  feed_count   = var.feed_reader == null && var.feed == null ? 0 : 1
}

# The feed can read, and delete, in this folder alone: neither the state nor another organization's objects.
resource "google_storage_managed_folder_iam_member" "feed" {
  count = local.feed_count

  bucket         = google_storage_managed_folder.logs.bucket
  managed_folder = google_storage_managed_folder.logs.name
  role           = var.feed_deletes ? "roles/storage.objectUser" : "roles/storage.objectViewer"
  member         = "serviceAccount:${local.feed_readers[0]}"
}

# It also reads the settings of the bucket, and lists it.
resource "google_storage_bucket_iam_member" "feed" {
  count = var.feed_bucket_role ? local.feed_count : 0

  bucket     = var.bucket
  role       = "roles/storage.legacyBucketReader"
  member     = "serviceAccount:${local.feed_readers[0]}"
  depends_on = [google_storage_bucket.logs]
}
