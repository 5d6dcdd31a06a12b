# The values that the promise, and least privilege, rest on. Providers are
# mocked: nothing is made, and no account is needed.

mock_provider "google" {
  mock_data "google_project" {
    defaults = {
      number = "123456789"
    }
  }
  mock_resource "google_service_account" {
    defaults = {
      name   = "projects/p/serviceAccounts/anybody@p.iam.gserviceaccount.com"
      id     = "projects/p/serviceAccounts/anybody@p.iam.gserviceaccount.com"
      email  = "anybody@p.iam.gserviceaccount.com"
      member = "serviceAccount:anybody@p.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_cloudfunctions2_function" {
    defaults = {
      service_config = {
        uri = "https://collector.run.app"
      }
    }
  }
  mock_resource "google_pubsub_topic" {
    defaults = {
      id = "projects/p/topics/openai-auditlog-dead-letter"
    }
  }
  mock_resource "google_chronicle_feed" {
    defaults = {
      details = {
        gcs_v2_settings = {
          chronicle_service_account = "feed@secops.iam.gserviceaccount.com"
        }
      }
    }
  }
}

override_resource {
  target = google_service_account.collector
  values = {
    name   = "projects/p/serviceAccounts/collector@p.iam.gserviceaccount.com"
    email  = "collector@p.iam.gserviceaccount.com"
    member = "serviceAccount:collector@p.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.push
  values = {
    name   = "projects/p/serviceAccounts/pusher@p.iam.gserviceaccount.com"
    email  = "pusher@p.iam.gserviceaccount.com"
    member = "serviceAccount:pusher@p.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.build
  values = {
    id     = "projects/p/serviceAccounts/builder@p.iam.gserviceaccount.com"
    email  = "builder@p.iam.gserviceaccount.com"
    member = "serviceAccount:builder@p.iam.gserviceaccount.com"
  }
}

variables {
  project = "p"
  bucket  = "logs"
}

run "defaults" {
  # The function.
  assert {
    condition = (
      google_cloudfunctions2_function.collector.build_config[0].runtime == "go126"
      && google_cloudfunctions2_function.collector.build_config[0].entry_point == "main"
      && google_cloudfunctions2_function.collector.build_config[0].service_account == google_service_account.build.id
      && google_cloudfunctions2_function.collector.build_config[0].environment_variables == tomap({
        CGO_ENABLED      = "0"
        GOFLAGS          = "-tags=disable_grpc_modules"
        GOOGLE_GOLDFLAGS = "-s -w"
      })
    )
    error_message = "the function is not built as it should be"
  }
  assert {
    condition = (
      google_cloudfunctions2_function.collector.service_config[0].available_cpu == "1"
      && google_cloudfunctions2_function.collector.service_config[0].available_memory == "256Mi"
      && google_cloudfunctions2_function.collector.service_config[0].max_instance_request_concurrency == 1
      && google_cloudfunctions2_function.collector.service_config[0].min_instance_count == 0
      && google_cloudfunctions2_function.collector.service_config[0].max_instance_count == 1
      && google_cloudfunctions2_function.collector.service_config[0].ingress_settings == "ALLOW_INTERNAL_ONLY"
      && google_cloudfunctions2_function.collector.service_config[0].service_account_email == "collector@p.iam.gserviceaccount.com"
      && length(google_cloudfunctions2_function.collector.event_trigger) == 0
    )
    error_message = "the service is not set up as it should be"
  }
  assert {
    condition = google_cloudfunctions2_function.collector.service_config[0].environment_variables == tomap({
      GCS_BUCKET          = "logs"
      GCS_PREFIX          = "openai-auditlog"
      STATE_KEY           = "state/openai-auditlog/state.json"
      OVERLAP_SECONDS     = "900"
      RUN_TIMEOUT_SECONDS = "480"
      GOMEMLIMIT          = "192MiB"
    })
    error_message = "settings: ${jsonencode(google_cloudfunctions2_function.collector.service_config[0].environment_variables)}"
  }
  assert {
    condition = (
      one(google_cloudfunctions2_function.collector.service_config[0].secret_environment_variables).key == "OPENAI_ADMIN_KEY"
      && one(google_cloudfunctions2_function.collector.service_config[0].secret_environment_variables).secret == "openai-auditlog-admin-key"
      && one(google_cloudfunctions2_function.collector.service_config[0].secret_environment_variables).version == "latest"
    )
    error_message = "the key does not come from Secret Manager"
  }

  # Time-outs, each above the one before.
  assert {
    condition = (
      tonumber(google_cloudfunctions2_function.collector.service_config[0].environment_variables.RUN_TIMEOUT_SECONDS) + 60 <= google_cloudfunctions2_function.collector.service_config[0].timeout_seconds
      && google_cloudfunctions2_function.collector.service_config[0].timeout_seconds + 60 <= google_pubsub_subscription.push.ack_deadline_seconds
      && google_pubsub_subscription.push.ack_deadline_seconds == 600
    )
    error_message = "time-outs do not nest"
  }

  # The trigger.
  assert {
    condition = (
      google_pubsub_subscription.push.topic == "openai-auditlog"
      && google_pubsub_subscription.push.push_config[0].push_endpoint == "https://collector.run.app/projects/p/topics/openai-auditlog"
      && google_pubsub_subscription.push.push_config[0].oidc_token[0].service_account_email == "pusher@p.iam.gserviceaccount.com"
      && google_pubsub_subscription.push.push_config[0].oidc_token[0].audience == "https://collector.run.app"
      && google_pubsub_subscription.push.retry_policy[0].minimum_backoff == "60s"
      && google_pubsub_subscription.push.retry_policy[0].maximum_backoff == "600s"
      && google_pubsub_subscription.push.message_retention_duration == "3000s"
      && google_pubsub_subscription.push.expiration_policy[0].ttl == ""
      && google_pubsub_subscription.push.dead_letter_policy[0].dead_letter_topic == google_pubsub_topic.dead_letter.id
      && google_pubsub_subscription.push.dead_letter_policy[0].max_delivery_attempts == 5
    )
    error_message = "the push subscription is not set up as it should be"
  }
  assert {
    condition = (
      google_cloud_scheduler_job.hourly.schedule == "0 * * * *"
      && google_cloud_scheduler_job.hourly.time_zone == "Etc/UTC"
      && google_cloud_scheduler_job.hourly.pubsub_target[0].topic_name == "projects/p/topics/openai-auditlog"
      && base64decode(google_cloud_scheduler_job.hourly.pubsub_target[0].data) == "{}"
    )
    error_message = "the job is not set up as it should be"
  }
  assert {
    condition = (
      google_cloud_run_v2_service_iam_member.push.role == "roles/run.invoker"
      && google_cloud_run_v2_service_iam_member.push.member == "serviceAccount:pusher@p.iam.gserviceaccount.com"
      && google_service_account_iam_member.push.role == "roles/iam.serviceAccountTokenCreator"
      && google_service_account_iam_member.push.service_account_id == google_service_account.push.name
      && google_service_account_iam_member.push.member == "serviceAccount:service-123456789@gcp-sa-pubsub.iam.gserviceaccount.com"
      && google_pubsub_topic_iam_member.dead_letter.role == "roles/pubsub.publisher"
      && google_pubsub_topic_iam_member.dead_letter.topic == "openai-auditlog-dead-letter"
      && google_pubsub_topic_iam_member.dead_letter.member == "serviceAccount:service-123456789@gcp-sa-pubsub.iam.gserviceaccount.com"
      && google_pubsub_subscription_iam_member.dead_letter.role == "roles/pubsub.subscriber"
      && google_pubsub_subscription_iam_member.dead_letter.subscription == "openai-auditlog"
    )
    error_message = "the roles of the trigger are not what they should be"
  }

  # The bucket, and who may do what in it.
  assert {
    condition = (
      google_storage_bucket.logs[0].uniform_bucket_level_access
      && google_storage_bucket.logs[0].public_access_prevention == "enforced"
      && !google_storage_bucket.logs[0].force_destroy
      && length(google_storage_bucket.logs[0].retention_policy) == 0
      && length(google_storage_bucket.state) == 0
    )
    error_message = "the bucket is not set up as it should be"
  }
  assert {
    condition = (
      google_storage_managed_folder_iam_member.logs_create.bucket == "logs"
      && google_storage_managed_folder_iam_member.logs_create.managed_folder == "openai-auditlog/"
      && google_storage_managed_folder_iam_member.logs_create.role == "roles/storage.objectCreator"
      && google_storage_managed_folder_iam_member.logs_create.member == "serviceAccount:collector@p.iam.gserviceaccount.com"
      && length(google_storage_managed_folder_iam_member.logs_read) == 0
      && google_storage_managed_folder_iam_member.state.bucket == "logs"
      && google_storage_managed_folder_iam_member.state.managed_folder == "state/openai-auditlog/"
      && google_storage_managed_folder_iam_member.state.role == "roles/storage.objectUser"
      && google_storage_managed_folder_iam_member.state.member == "serviceAccount:collector@p.iam.gserviceaccount.com"
      && google_secret_manager_secret_iam_member.collector.role == "roles/secretmanager.secretAccessor"
      && google_secret_manager_secret_iam_member.collector.secret_id == "openai-auditlog-admin-key"
      && google_secret_manager_secret_iam_member.collector.member == "serviceAccount:collector@p.iam.gserviceaccount.com"
    )
    error_message = "the collector's roles are not the least that work"
  }
  # On the project, only the build's account has roles.
  assert {
    condition = alltrue([for m in google_project_iam_member.build : m.member == "serviceAccount:builder@p.iam.gserviceaccount.com"]) && toset(keys(google_project_iam_member.build)) == toset([
      "roles/artifactregistry.writer", "roles/logging.logWriter", "roles/storage.objectViewer",
    ])
    error_message = "roles on the project: ${jsonencode(google_project_iam_member.build)}"
  }

  # What is uploaded.
  assert {
    condition     = toset([for s in data.archive_file.source.source : s.filename]) == toset(local.sources) && contains(local.sources, "function.go") && contains(local.sources, "go.sum") && contains(local.sources, "internal/plan/plan.go") && !anytrue([for f in local.sources : endswith(f, "_test.go") || strcontains(f, "internal/sim") || strcontains(f, "cmd/")])
    error_message = "the archive holds ${jsonencode(local.sources)}"
  }

  # No feed without an instance, and nobody is let in.
  assert {
    condition     = length(google_chronicle_feed.this) == 0 && length(google_storage_bucket_iam_member.feed) == 0
    error_message = "there is a feed"
  }

  # Alerts.
  assert {
    condition = toset(keys(google_monitoring_alert_policy.this)) == toset([
      "no_successful_run", "lag", "backlog", "refused", "failing", "kept",
    ])
    error_message = "alerts: ${jsonencode(keys(google_monitoring_alert_policy.this))}"
  }
  assert {
    condition = (
      strcontains(google_monitoring_alert_policy.this["no_successful_run"].conditions[0].condition_prometheus_query_language[0].query, "user_openai_auditlog_runs{")
      && strcontains(google_monitoring_alert_policy.this["no_successful_run"].conditions[0].condition_prometheus_query_language[0].query, "[3h]")
      && strcontains(google_monitoring_alert_policy.this["lag"].conditions[0].condition_matched_log[0].filter, "jsonPayload.run.lag_seconds>14400")
      && strcontains(google_monitoring_alert_policy.this["lag"].conditions[0].condition_matched_log[0].filter, "service_name=\"openai-auditlog\"")
    )
    error_message = "an alert watches something else"
  }
  assert {
    condition = alltrue([for a in google_monitoring_alert_policy.this :
      length(a.conditions[0].condition_matched_log) == 0 || length(a.alert_strategy[0].notification_rate_limit) == 1
    ])
    error_message = "an alert on log lines needs a rate limit"
  }
  assert {
    condition     = google_logging_metric.this["lag_seconds"].name == "openai_auditlog_lag_seconds" && google_logging_metric.this["lag_seconds"].value_extractor == "EXTRACT(jsonPayload.run.lag_seconds)"
    error_message = "the lag is not measured"
  }
}

run "retention" {
  variables {
    retention_days = 30
  }

  assert {
    condition     = google_storage_bucket.logs[0].retention_policy[0].retention_period == "2592000" && google_storage_bucket.state[0].name == "logs-state"
    error_message = "the evidence is not retained, or the state has no bucket of its own"
  }
  assert {
    condition = (
      google_cloudfunctions2_function.collector.service_config[0].environment_variables.STATE_BUCKET == "logs-state"
      && google_storage_managed_folder_iam_member.state.bucket == "logs-state"
      && google_storage_managed_folder_iam_member.logs_read[0].bucket == "logs"
      && google_storage_managed_folder_iam_member.logs_read[0].managed_folder == "openai-auditlog/"
      && google_storage_managed_folder_iam_member.logs_read[0].role == "roles/storage.objectViewer"
      && google_storage_managed_folder_iam_member.logs_create.role == "roles/storage.objectCreator"
    )
    error_message = "the collector cannot work from a state bucket, or may do more than it needs"
  }
}

run "retention_and_a_feed_that_deletes" {
  command = plan
  variables {
    retention_days = 30
    feed_deletes   = true
  }
  expect_failures = [var.feed_deletes]
}

run "retention_and_versioning" {
  command = plan
  variables {
    retention_days = 30
    versioning     = true
  }
  expect_failures = [google_storage_bucket.logs]
}

run "settings_that_follow_from_others" {
  command = plan
  variables {
    settings = { STATE_KEY = "x" }
  }
  expect_failures = [var.settings]
}

run "feed" {
  variables {
    feed = {
      instance = "0000-1111"
      location = "eu"
    }
    settings = { MAX_RECORDS = "20000", OVERLAP_SECONDS = "300" }
  }

  assert {
    condition = (
      google_chronicle_feed.this[0].details[0].feed_source_type == "GOOGLE_CLOUD_STORAGE_V2"
      && endswith(google_chronicle_feed.this[0].details[0].log_type, "/logTypes/OPENAI_AUDITLOG")
      && google_chronicle_feed.this[0].details[0].gcs_v2_settings[0].bucket_uri == "gs://logs/openai-auditlog/"
      && google_chronicle_feed.this[0].details[0].gcs_v2_settings[0].source_deletion_option == "NEVER"
    )
    error_message = "the feed is not set up as it should be"
  }
  assert {
    condition     = toset([for m in google_storage_bucket_iam_member.feed : m.role]) == toset(["roles/storage.objectViewer", "roles/storage.legacyBucketReader"])
    error_message = "the feed cannot read, or may do more"
  }
  assert {
    condition = (
      google_cloudfunctions2_function.collector.service_config[0].environment_variables.MAX_RECORDS == "20000"
      && google_cloudfunctions2_function.collector.service_config[0].environment_variables.OVERLAP_SECONDS == "300"
    )
    error_message = "settings do not arrive"
  }
}

run "feed_made_by_hand_that_deletes" {
  variables {
    feed_reader   = "hand@secops.iam.gserviceaccount.com"
    feed_deletes  = true
    create_bucket = false
    create_topic  = false
    topic         = "audit-logs"
  }

  assert {
    condition = (
      toset([for m in google_storage_bucket_iam_member.feed : m.role]) == toset(["roles/storage.objectViewer", "roles/storage.legacyBucketWriter"])
      && alltrue([for m in google_storage_bucket_iam_member.feed : m.member == "serviceAccount:hand@secops.iam.gserviceaccount.com" && m.bucket == "logs"])
    )
    error_message = "the feed's roles are not what they should be"
  }
  assert {
    condition     = length(google_storage_bucket.logs) == 0 && length(google_pubsub_topic.trigger) == 0 && google_pubsub_subscription.push.topic == "audit-logs"
    error_message = "what is there already is made again, or not used"
  }
}
