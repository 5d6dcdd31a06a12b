# Two organizations in one project and bucket, each with its own collector, folder and state. For one, leave out for_each.

terraform {
  required_providers {
    google = { source = "hashicorp/google" }
  }
  # backend "gcs" { bucket = "my-terraform-state" } # keeps the state where others find it
}

locals {
  project     = "my-project"
  bucket      = "my-bucket"
  email       = "security@example.com"        # who is told when something is wrong
  feed_reader = "…@….iam.gserviceaccount.com" # the feeds' service account, as SecOps shows it

  # Each has its key in the secret <name>-admin-key, which is made first.
  organizations = {
    openai-auditlog      = { LOOKBACK_HOURS = "720" }
    openai-auditlog-labs = { LOOKBACK_HOURS = "24" }
  }
}

provider "google" {
  project = local.project
}

resource "google_storage_bucket" "logs" {
  name                        = local.bucket
  location                    = "us-central1"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
}

# Once for all feeds of the bucket, so that no organization takes it along.
resource "google_storage_bucket_iam_member" "feed" {
  bucket = google_storage_bucket.logs.name
  role   = "roles/storage.legacyBucketReader"
  member = "serviceAccount:${local.feed_reader}"
}

resource "google_monitoring_notification_channel" "team" {
  display_name = "Security team"
  type         = "email"
  labels       = { email_address = local.email }
}

module "auditlog" {
  source   = "../"
  for_each = local.organizations

  project               = local.project
  name                  = each.key
  bucket                = google_storage_bucket.logs.name
  create_bucket         = false
  settings              = each.value
  feed_reader           = local.feed_reader
  feed_bucket_role      = false
  notification_channels = [google_monitoring_notification_channel.team.name]
}

output "force_run" {
  value = { for name, m in module.auditlog : name => m.force_run }
}
