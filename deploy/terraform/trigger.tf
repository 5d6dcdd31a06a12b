# Not Eventarc: it owns its subscription, whose back-off, retention and dead letters can only be changed outside Eventarc,
# without its knowing. They decide how often a failed run is tried again, and who hears of it.

resource "google_pubsub_topic" "trigger" {
  count = var.create_topic ? 1 : 0

  project      = var.project
  name         = local.topic
  labels       = var.labels
  kms_key_name = var.kms_key
  depends_on   = [google_project_service.this, google_kms_crypto_key_iam_member.this]
}

resource "google_pubsub_subscription" "push" {
  project = var.project
  name    = var.name
  topic   = local.topic
  labels  = var.labels

  push_config {
    # At this path the functions framework knows a push of Pub/Sub for what it is.
    push_endpoint = "${google_cloudfunctions2_function.collector.service_config[0].uri}/projects/${var.project}/topics/${local.topic}"
    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = google_cloudfunctions2_function.collector.service_config[0].uri
    }
  }

  ack_deadline_seconds       = local.ack_deadline_seconds
  message_retention_duration = "${local.retry_window_seconds}s"
  retry_policy {
    minimum_backoff = "${local.backoff_seconds}s"
    maximum_backoff = "600s"
  }
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letter.id
    max_delivery_attempts = 5
  }
  expiration_policy {
    ttl = "" # never
  }

  depends_on = [
    google_pubsub_topic.trigger,
    google_cloud_run_v2_service_iam_member.push,
    google_service_account_iam_member.push,
    google_pubsub_topic_iam_member.dead_letter,
  ]
}

# Messages that failed five times are kept here to be looked at. Nothing is lost: the next run reads the same records.
resource "google_pubsub_topic" "dead_letter" {
  project      = var.project
  name         = "${var.name}-dead-letter"
  labels       = var.labels
  kms_key_name = var.kms_key
  depends_on   = [google_project_service.this, google_kms_crypto_key_iam_member.this]
}

resource "google_pubsub_subscription" "dead_letter" {
  project                    = var.project
  name                       = "${var.name}-dead-letter"
  topic                      = google_pubsub_topic.dead_letter.name
  labels                     = var.labels
  message_retention_duration = "604800s"
  expiration_policy {
    ttl = "" # never
  }
}

resource "google_cloud_run_v2_service_iam_member" "push" {
  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.collector.name
  role     = "roles/run.invoker"
  member   = google_service_account.push.member
}

resource "google_service_account_iam_member" "push" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = google_project_service_identity.this["pubsub"].member
}

resource "google_pubsub_topic_iam_member" "dead_letter" {
  project = var.project
  topic   = google_pubsub_topic.dead_letter.name
  role    = "roles/pubsub.publisher"
  member  = google_project_service_identity.this["pubsub"].member
}

resource "google_pubsub_subscription_iam_member" "dead_letter" {
  project      = var.project
  subscription = google_pubsub_subscription.push.name
  role         = "roles/pubsub.subscriber"
  member       = google_project_service_identity.this["pubsub"].member
}

resource "google_cloud_scheduler_job" "this" {
  project     = var.project
  region      = var.region
  name        = var.name
  description = "Triggers the OpenAI audit log collector"
  schedule    = var.schedule
  time_zone   = var.time_zone

  pubsub_target {
    topic_name = "projects/${var.project}/topics/${local.topic}"
    data       = base64encode("{}")
  }
  depends_on = [google_project_service.this, google_pubsub_topic.trigger]
}
