resource "google_storage_bucket" "logs" {
  count = var.create_bucket ? 1 : 0

  project                     = var.project
  name                        = var.bucket
  location                    = local.location
  labels                      = var.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  deletion_policy             = "ABANDON" # the evidence outlives the collector

  versioning {
    enabled = var.versioning
  }

  dynamic "retention_policy" {
    for_each = var.retention_days > 0 ? [var.retention_days] : []
    content {
      retention_period = retention_policy.value * 24 * 3600
    }
  }
  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }
  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.this]
}

# A retention policy forbids to replace and to delete; the state needs both.
resource "google_storage_bucket" "state" {
  count = local.state_apart ? 1 : 0

  project                     = var.project
  name                        = local.state_bucket
  location                    = local.location
  labels                      = var.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  deletion_policy             = "ABANDON"

  versioning {
    enabled = true
  }
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 7
      num_newer_versions         = 5
    }
  }
  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }
  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.this]
}

# Managed folders bound what the collector can do within a bucket, and let it list its own folder. A condition on object
# names would not: then neither a first run nor the sweep of old staged objects would work.

resource "google_storage_managed_folder" "logs" {
  bucket        = var.bucket
  name          = "${local.prefix}/"
  force_destroy = true # the objects stay
  depends_on    = [google_storage_bucket.logs]
}

resource "google_storage_managed_folder" "state" {
  bucket        = local.state_bucket
  name          = "${local.state_folder}/"
  force_destroy = true # the objects stay
  depends_on    = [google_storage_bucket.logs, google_storage_bucket.state]
}

# Under the feed prefix it can create objects, and neither replace nor delete them.
resource "google_storage_managed_folder_iam_member" "logs_create" {
  bucket         = google_storage_managed_folder.logs.bucket
  managed_folder = google_storage_managed_folder.logs.name
  role           = "roles/storage.objectCreator"
  member         = google_service_account.collector.member
}

# From a state bucket an object is published by a copy. If its answer is lost, only a read shows whether it is there.
resource "google_storage_managed_folder_iam_member" "logs_read" {
  count = local.state_apart ? 1 : 0

  bucket         = google_storage_managed_folder.logs.bucket
  managed_folder = google_storage_managed_folder.logs.name
  role           = "roles/storage.objectViewer"
  member         = google_service_account.collector.member
}

# The state and staged objects are read, replaced, moved, listed and deleted.
resource "google_storage_managed_folder_iam_member" "state" {
  bucket         = google_storage_managed_folder.state.bucket
  managed_folder = google_storage_managed_folder.state.name
  role           = "roles/storage.objectUser"
  member         = google_service_account.collector.member
}
