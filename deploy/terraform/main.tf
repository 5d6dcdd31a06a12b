# Collects OpenAI's audit logs for Google SecOps. docs/guide.md says where this differs from Google's guide, and why.

data "google_project" "this" {
  project_id = var.project
}

locals {
  prefix       = coalesce(var.prefix, var.name)
  topic        = coalesce(var.topic, var.name)
  secret       = coalesce(var.admin_key_secret, "${var.name}-admin-key")
  location     = coalesce(var.bucket_location, var.region)
  state_folder = coalesce(var.state_folder, "state/${var.name}") # another prefix begins no new state
  state_bucket = coalesce(var.state_bucket, var.retention_days > 0 ? "${var.bucket}-state" : var.bucket)
  state_apart  = local.state_bucket != var.bucket

  # Each time-out is above the one before, so that a run ends by itself and commits, and nobody starts it a second time.
  run_timeout_seconds     = 480 # the run's own deadline
  request_timeout_seconds = 540 # the service's
  ack_deadline_seconds    = 600 # Pub/Sub's, its longest

  # What follows from the time between two runs; deploy.sh computes the same.
  intervals = {
    "*/5 * * * *"  = 5
    "*/15 * * * *" = 15
    "0 * * * *"    = 60
    "0 */6 * * *"  = 360
    "0 0 * * *"    = 1440
  }
  interval_minutes     = coalesce(var.interval_minutes, lookup(local.intervals, var.schedule, 60))
  alert_hours          = ceil(2 * local.interval_minutes / 60) + 1           # two runs missed, and an hour
  retry_window_seconds = max(600, 60 * (local.interval_minutes - 10))        # then the next run's event takes over
  backoff_seconds      = min(60, max(10, floor(2 * local.interval_minutes))) # five attempts take half an interval
}

resource "google_project_service" "this" {
  for_each = toset(concat(
    ["artifactregistry", "cloudbuild", "cloudfunctions", "cloudresourcemanager", "cloudscheduler", "iam"],
    ["logging", "monitoring", "pubsub", "run", "secretmanager", "storage"],
    var.feed == null ? [] : ["chronicle"],
    var.kms_key == null ? [] : ["cloudkms"],
  ))

  project            = var.project
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false # others may use it
}

# Google's own accounts of these services. A new project has none until somebody asks for it; only then can it get a role.
resource "google_project_service_identity" "this" {
  for_each = toset(concat(["pubsub"], var.kms_key == null ? [] : ["artifactregistry", "cloudfunctions", "run"]))
  provider = google-beta

  project    = var.project
  service    = "${each.key}.googleapis.com"
  depends_on = [google_project_service.this]
}

data "google_storage_project_service_account" "this" {
  count      = var.kms_key == null ? 0 : 1
  project    = var.project
  depends_on = [google_project_service.this]
}

resource "google_kms_crypto_key_iam_member" "this" {
  for_each = var.kms_key == null ? {} : merge(
    { for name, identity in google_project_service_identity.this : name => identity.member },
    { storage = data.google_storage_project_service_account.this[0].member },
  )

  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = each.value
}

# Runs the function. It can use its folders and read its key, has no role on the project, and cannot invoke anything.
resource "google_service_account" "collector" {
  project      = var.project
  account_id   = var.name
  display_name = "OpenAI audit log collector"
  depends_on   = [google_project_service.this]
}

# Pub/Sub calls the function with this account, which can do nothing else.
resource "google_service_account" "push" {
  project      = var.project
  account_id   = "${var.name}-push"
  display_name = "Triggers the OpenAI audit log collector"
  depends_on   = [google_project_service.this]
}

# The key itself is put in with gcloud: Terraform never sees it.
resource "google_secret_manager_secret" "key" {
  count = var.secret_locations == null ? 0 : 1

  project   = var.project
  secret_id = local.secret
  labels    = var.labels

  replication {
    user_managed {
      dynamic "replicas" {
        for_each = var.secret_locations
        content {
          location = replicas.value
        }
      }
    }
  }
  depends_on = [google_project_service.this]
}

resource "google_secret_manager_secret_iam_member" "collector" {
  project    = var.project
  secret_id  = local.secret
  role       = "roles/secretmanager.secretAccessor"
  member     = google_service_account.collector.member
  depends_on = [google_secret_manager_secret.key]
}
