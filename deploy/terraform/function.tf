locals {
  root = "${path.module}/../.."
  # What the function consists of; .gcloudignore says the same to gcloud.
  packages = "internal/{audit,checkup,cloudlog,config,names,openai,plan,state,store}/*.go"
  sources = setunion(["go.mod", "go.sum"], [
    for f in setunion(fileset(local.root, "*.go"), fileset(local.root, local.packages)) : f if !endswith(f, "_test.go")
  ])
  memory_mib = parseint(substr(var.memory, 0, length(var.memory) - 2), 10) * (endswith(var.memory, "Gi") ? 1024 : 1)
}

data "archive_file" "source" {
  type        = "zip"
  output_path = "${path.root}/.terraform/${var.name}-source.zip"

  dynamic "source" {
    for_each = local.sources
    content {
      filename = source.value
      content  = file("${local.root}/${source.value}")
    }
  }
}

resource "google_storage_bucket" "source" {
  project                     = var.project
  name                        = "${var.project}-${var.name}-source"
  location                    = var.region
  labels                      = var.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true
  depends_on                  = [google_project_service.this]
}

resource "google_storage_bucket_object" "source" {
  bucket = google_storage_bucket.source.name
  name   = "${data.archive_file.source.output_sha256}.zip" # another source is another object, and a new build
  source = data.archive_file.source.output_path
}

# Builds the image. These are the roles that Google documents for a build with an
# account of its own; the default one may be far more powerful, or be missing.
resource "google_service_account" "build" {
  project      = var.project
  account_id   = "${var.name}-build"
  display_name = "Builds the OpenAI audit log collector"
  depends_on   = [google_project_service.this]
}

resource "google_project_iam_member" "build" {
  for_each = toset(["roles/artifactregistry.writer", "roles/logging.logWriter", "roles/storage.objectViewer"])

  project = var.project
  role    = each.key
  member  = google_service_account.build.member
}

resource "google_cloudfunctions2_function" "collector" {
  project     = var.project
  location    = var.region
  name        = var.name
  labels      = var.labels
  description = "Collects OpenAI's audit logs into gs://${var.bucket}/${local.prefix}/"

  build_config {
    runtime         = "go126"
    entry_point     = "main"
    service_account = google_service_account.build.id
    environment_variables = {
      CGO_ENABLED      = "0"                          # starts faster
      GOFLAGS          = "-tags=disable_grpc_modules" # a third smaller, and starts faster
      GOOGLE_GOLDFLAGS = "-s -w"
    }
    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    available_cpu                    = "1"
    available_memory                 = var.memory
    timeout_seconds                  = local.request_timeout_seconds
    max_instance_request_concurrency = 1 # a run an instance
    min_instance_count               = 0
    max_instance_count               = var.max_instances
    ingress_settings                 = "ALLOW_INTERNAL_ONLY" # Pub/Sub of this project counts as internal
    all_traffic_on_latest_revision   = true
    service_account_email            = google_service_account.collector.email
    environment_variables = merge({
      OVERLAP_SECONDS = "900"                                  # the state knows the ids: a wide overlap repeats nothing
      GOMEMLIMIT      = "${floor(local.memory_mib * 0.75)}MiB" # garbage is collected rather than this passed
      }, var.settings, {
      GCS_BUCKET          = var.bucket
      GCS_PREFIX          = local.prefix
      STATE_KEY           = "${local.state_folder}/state.json"
      RUN_TIMEOUT_SECONDS = tostring(local.run_timeout_seconds)
    }, var.retention_days > 0 ? { STATE_BUCKET = local.state_bucket } : {})

    secret_environment_variables {
      key        = "OPENAI_ADMIN_KEY"
      project_id = var.project
      secret     = local.secret
      version    = "latest"
    }
  }

  depends_on = [
    google_project_iam_member.build,
    google_secret_manager_secret_iam_member.collector,
    google_storage_managed_folder_iam_member.logs_create,
    google_storage_managed_folder_iam_member.state,
  ]
}
