# Collects OpenAI's audit logs for Google SecOps: what the guide "Collect OpenAI
# Audit Logs" makes in the console, with safer defaults. deploy/README.md says
# where it differs, and why.

data "google_project" "this" {
  project_id = var.project
}

locals {
  prefix       = coalesce(var.prefix, var.name)
  topic        = coalesce(var.topic, var.name)
  secret       = coalesce(var.admin_key_secret, "${var.name}-admin-key")
  location     = coalesce(var.bucket_location, var.region)
  state_folder = "state/${local.prefix}"
  state_bucket = var.retention_days == 0 ? var.bucket : coalesce(var.state_bucket, "${var.bucket}-state")

  # Each time-out is above the one before, so that a run ends by itself: it
  # commits what it has read, and nobody cuts it off or starts it a second time.
  run_timeout_seconds     = 480 # the run's own deadline
  request_timeout_seconds = 540 # the service's
  ack_deadline_seconds    = 600 # Pub/Sub's, its longest
}

resource "google_project_service" "this" {
  for_each = toset(concat([
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudfunctions.googleapis.com",
    "cloudscheduler.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
  ], var.feed == null ? [] : ["chronicle.googleapis.com"]))

  project            = var.project
  service            = each.key
  disable_on_destroy = false # others may use it
}

# Runs the function. It can read and write its objects and read its key, has no
# role on the project, and cannot invoke anything.
resource "google_service_account" "collector" {
  project      = var.project
  account_id   = var.name
  display_name = "OpenAI audit log collector"
  depends_on   = [google_project_service.this]
}

# Whom Pub/Sub calls the function as. It can do nothing else.
resource "google_service_account" "push" {
  project      = var.project
  account_id   = "${var.name}-push"
  display_name = "Triggers the OpenAI audit log collector"
  depends_on   = [google_project_service.this]
}

resource "google_secret_manager_secret_iam_member" "collector" {
  project   = var.project
  secret_id = local.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.collector.member
}
