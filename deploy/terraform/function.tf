locals {
  root = "${path.module}/../.."
  # What the function consists of; .gcloudignore says the same to gcloud.
  packages = "internal/{audit,checkup,cloudlog,config,names,openai,plan,state,store}/*.go"
  sources = setunion(["go.mod", "go.sum"], [
    for f in setunion(fileset(local.root, "*.go"), fileset(local.root, local.packages)) : f if !endswith(f, "_test.go")
  ])
  source_hash = sha256(join("\n", [for f in local.sources : "${f} ${filesha256("${local.root}/${f}")}"]))
  version     = regex("const Version = \"(.*)\"", file("${local.root}/function.go"))[0]

  memory_mib = parseint(substr(var.memory, 0, length(var.memory) - 2), 10) * (endswith(var.memory, "Gi") ? 1024 : 1)
  settings = merge({ OVERLAP_SECONDS = "900" }, var.settings, { # the state knows the ids: a wide overlap repeats nothing
    GCS_BUCKET       = var.bucket
    GCS_PREFIX       = local.prefix
    STATE_KEY        = "${local.state_folder}/state.json"
    INTERVAL_MINUTES = tostring(local.interval_minutes)
  }, local.state_apart ? { STATE_BUCKET = local.state_bucket } : {})
}

resource "google_storage_bucket" "source" {
  project                     = var.project
  name                        = "${data.google_project.this.number}-${var.name}-source" # a project's ID can hold what no bucket's name does
  location                    = var.region
  labels                      = var.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }
  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.this]
}

# A change of this makes the archive at apply, which may be elsewhere, and not at plan.
resource "terraform_data" "source" {
  input = [local.source_hash, google_storage_bucket.source.name]
}

data "archive_file" "source" {
  type        = "zip"
  output_path = "${path.root}/.terraform/${var.name}-source.zip"

  dynamic "source" {
    for_each = local.sources
    content {
      filename = source.value
      content  = sensitive(file("${local.root}/${source.value}")) # no secret, but no plan need show it
    }
  }
  depends_on = [terraform_data.source]
}

resource "google_storage_bucket_object" "source" {
  bucket         = google_storage_bucket.source.name
  name           = "${local.source_hash}.zip" # another source is another object, and a new build
  source         = data.archive_file.source.output_path
  source_md5hash = local.source_hash # else a file that is not here would count as changed
}

# Builds the image, with the roles that Google documents. The default account may have far more roles, or be missing.
resource "google_service_account" "build" {
  project      = var.project
  account_id   = "${var.name}-build"
  display_name = "Builds the OpenAI audit log collector"
  depends_on   = [google_project_service.this]
}

resource "google_project_iam_member" "build_logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.build.member
}

resource "google_project_iam_member" "build_source" {
  project = var.project
  role    = "roles/storage.objectViewer"
  member  = google_service_account.build.member

  condition {
    title      = "sources of functions"
    expression = join(" || ", [for b in [google_storage_bucket.source.name, "gcf-v2-sources-${data.google_project.this.number}-${var.region}"] : "resource.name.startsWith(\"projects/_/buckets/${b}\")"])
  }
}

resource "google_artifact_registry_repository" "image" {
  project       = var.project
  location      = var.region
  repository_id = var.name
  description   = "Images of the OpenAI audit log collector"
  labels        = var.labels
  format        = "DOCKER"
  kms_key_name  = var.kms_key

  # What is kept wins over what is deleted.
  cleanup_policies {
    id     = "keep"
    action = "KEEP"
    most_recent_versions {
      keep_count = 5
    }
  }
  cleanup_policies {
    id     = "delete"
    action = "DELETE"
    condition {
      older_than = "2592000s"
    }
  }
  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.this]
}

resource "google_artifact_registry_repository_iam_member" "build" {
  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.image.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.build.member
}

# Roles take a while to be known everywhere; a build that starts before fails.
resource "time_sleep" "roles" {
  create_duration = "60s"
  depends_on = [
    google_project_iam_member.build_logs,
    google_project_iam_member.build_source,
    google_artifact_registry_repository_iam_member.build,
    google_secret_manager_secret_iam_member.collector,
  ]
}

resource "google_cloudfunctions2_function" "collector" {
  project      = var.project
  location     = var.region
  name         = var.name
  labels       = merge(var.labels, { version = replace(local.version, ".", "-") })
  description  = "Collects OpenAI's audit logs into gs://${var.bucket}/${local.prefix}/"
  kms_key_name = var.kms_key

  build_config {
    runtime           = "go126"
    entry_point       = "main"
    service_account   = google_service_account.build.id
    docker_repository = google_artifact_registry_repository.image.id
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
    max_instance_count               = 1                     # of runs at the same time one commits
    ingress_settings                 = "ALLOW_INTERNAL_ONLY" # Pub/Sub of this project counts as internal
    all_traffic_on_latest_revision   = true
    service_account_email            = google_service_account.collector.email
    environment_variables = merge(local.settings, {
      OPENAI_ADMIN_KEY_FILE = "/secrets/openai/admin-key"
      RUN_TIMEOUT_SECONDS   = tostring(local.run_timeout_seconds)
      GOMEMLIMIT            = "${floor(local.memory_mib * 0.75)}MiB" # garbage is collected rather than this passed
    })

    # Each run reads the file, and so the latest version of the key.
    secret_volumes {
      mount_path = "/secrets/openai"
      project_id = var.project
      secret     = local.secret
      versions {
        version = "latest"
        path    = "admin-key"
      }
    }

    direct_vpc_egress = var.network == null ? null : "VPC_EGRESS_ALL_TRAFFIC"
    dynamic "direct_vpc_network_interface" {
      for_each = var.network[*]
      content {
        network    = direct_vpc_network_interface.value.network
        subnetwork = direct_vpc_network_interface.value.subnetwork
        tags       = direct_vpc_network_interface.value.tags
      }
    }
  }

  depends_on = [
    time_sleep.roles,
    google_storage_managed_folder_iam_member.logs_create,
    google_storage_managed_folder_iam_member.state,
  ]
}
