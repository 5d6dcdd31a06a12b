# The values that the promise, and least privilege, rest on. Providers are
# mocked: nothing is made, and no account is needed. refused.tftest.hcl has what
# no plan is made of.

mock_provider "time" {}

mock_provider "google-beta" {
  mock_resource "google_project_service_identity" {
    defaults = {
      member = "serviceAccount:agent@gcp-sa.iam.gserviceaccount.com"
    }
  }
}

mock_provider "google" {
  mock_data "google_project" {
    defaults = {
      number = "123456789"
    }
  }
  mock_data "google_storage_project_service_account" {
    defaults = {
      member = "serviceAccount:service-123456789@gs-project-accounts.iam.gserviceaccount.com"
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
  target = google_project_service_identity.this["pubsub"]
  values = {
    member = "serviceAccount:service-123456789@gcp-sa-pubsub.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_artifact_registry_repository.image
  values = {
    id   = "projects/p/locations/us-central1/repositories/openai-auditlog"
    name = "openai-auditlog"
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
  project               = "my-project"
  bucket                = "logs"
  notification_channels = ["projects/p/notificationChannels/1"]
}

run "defaults" {
  # The function.
  assert {
    condition = (
      google_cloudfunctions2_function.collector.build_config[0].runtime == "go126"
      && google_cloudfunctions2_function.collector.build_config[0].entry_point == "main"
      && google_cloudfunctions2_function.collector.build_config[0].service_account == google_service_account.build.id
      && google_cloudfunctions2_function.collector.build_config[0].docker_repository == google_artifact_registry_repository.image.id
      && google_cloudfunctions2_function.collector.labels.version == replace(local.version, ".", "-")
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
      GCS_BUCKET            = "logs"
      GCS_PREFIX            = "openai-auditlog"
      STATE_KEY             = "state/openai-auditlog/state.json"
      OPENAI_ADMIN_KEY_FILE = "/secrets/openai/admin-key"
      INTERVAL_MINUTES      = "60"
      OVERLAP_SECONDS       = "900"
      RUN_TIMEOUT_SECONDS   = "480"
      GOMEMLIMIT            = "192MiB"
    })
    error_message = "settings: ${jsonencode(google_cloudfunctions2_function.collector.service_config[0].environment_variables)}"
  }
  assert {
    condition = (
      google_cloudfunctions2_function.collector.service_config[0].secret_volumes[0].mount_path == "/secrets/openai"
      && google_cloudfunctions2_function.collector.service_config[0].secret_volumes[0].secret == "openai-auditlog-admin-key"
      && one(google_cloudfunctions2_function.collector.service_config[0].secret_volumes[0].versions).path == "admin-key"
      && one(google_cloudfunctions2_function.collector.service_config[0].secret_volumes[0].versions).version == "latest"
      && length(google_cloudfunctions2_function.collector.service_config[0].secret_environment_variables) == 0
      && length(google_secret_manager_secret.key) == 0
    )
    error_message = "the key is not a file that each run reads anew"
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
      && google_pubsub_subscription.push.push_config[0].push_endpoint == "https://collector.run.app/projects/my-project/topics/openai-auditlog"
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
      google_cloud_scheduler_job.this.schedule == "0 * * * *"
      && google_cloud_scheduler_job.this.time_zone == "Etc/UTC"
      && google_cloud_scheduler_job.this.pubsub_target[0].topic_name == "projects/my-project/topics/openai-auditlog"
      && base64decode(google_cloud_scheduler_job.this.pubsub_target[0].data) == "{}"
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
      && google_storage_bucket.logs[0].deletion_policy == "ABANDON"
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
  # Taken down, folders that hold objects are no hindrance.
  assert {
    condition     = google_storage_managed_folder.logs.force_destroy && google_storage_managed_folder.state.force_destroy
    error_message = "a destroy would stop at a folder"
  }

  # On the project, the build's account has two roles, one of them for sources alone.
  assert {
    condition = (
      google_project_iam_member.build_logs.role == "roles/logging.logWriter"
      && google_project_iam_member.build_source.role == "roles/storage.objectViewer"
      && google_project_iam_member.build_source.condition[0].expression == "resource.name.startsWith(\"projects/_/buckets/123456789-openai-auditlog-source\") || resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-123456789-us-central1\")"
      && google_artifact_registry_repository_iam_member.build.role == "roles/artifactregistry.writer"
      && google_artifact_registry_repository_iam_member.build.repository == "openai-auditlog"
      && alltrue([for m in [google_project_iam_member.build_logs, google_project_iam_member.build_source, google_artifact_registry_repository_iam_member.build] : m.member == "serviceAccount:builder@p.iam.gserviceaccount.com"])
    )
    error_message = "the build's account has other roles"
  }
  assert {
    condition     = { for p in google_artifact_registry_repository.image.cleanup_policies : p.action => p.id } == { KEEP = "keep", DELETE = "delete" } && !coalesce(google_artifact_registry_repository.image.cleanup_policy_dry_run, false)
    error_message = "old images stay"
  }
  assert {
    condition     = time_sleep.roles.create_duration == "60s" && contains(keys(google_project_service.this), "cloudresourcemanager")
    error_message = "a first apply does not wait for roles, or for Resource Manager"
  }

  # What is uploaded, under a name that is known before it is made.
  assert {
    condition     = toset([for s in data.archive_file.source.source : s.filename]) == toset(local.sources) && contains(local.sources, "function.go") && contains(local.sources, "go.sum") && contains(local.sources, "internal/plan/plan.go") && !anytrue([for f in local.sources : endswith(f, "_test.go") || strcontains(f, "internal/sim") || strcontains(f, "cmd/")])
    error_message = "the archive holds ${jsonencode(local.sources)}"
  }
  assert {
    condition     = google_storage_bucket_object.source.name == "${local.source_hash}.zip" && google_storage_bucket_object.source.source_md5hash == local.source_hash && google_cloudfunctions2_function.collector.build_config[0].source[0].storage_source[0].object == google_storage_bucket_object.source.name
    error_message = "the archive's name does not follow from the sources alone"
  }

  # No feed without an instance, and nobody is let in.
  assert {
    condition     = length(google_chronicle_feed.this) == 0 && length(google_storage_bucket_iam_member.feed) == 0 && length(google_storage_managed_folder_iam_member.feed) == 0 && output.feed_reader == null
    error_message = "there is a feed"
  }

  # Alerts.
  assert {
    condition = toset(keys(google_monitoring_alert_policy.this)) == toset([
      "no_successful_run", "lag", "backlog", "refused", "failing", "kept", "dead_letter", "set_aside",
    ])
    error_message = "alerts: ${jsonencode(keys(google_monitoring_alert_policy.this))}"
  }
  assert {
    condition = (
      strcontains(google_monitoring_alert_policy.this["no_successful_run"].conditions[0].condition_prometheus_query_language[0].query, "user_openai_auditlog_runs{")
      && strcontains(google_monitoring_alert_policy.this["no_successful_run"].conditions[0].condition_prometheus_query_language[0].query, "[3h]")
      && strcontains(google_monitoring_alert_policy.this["lag"].conditions[0].condition_matched_log[0].filter, "jsonPayload.run.lag_seconds>14400")
      && strcontains(google_monitoring_alert_policy.this["dead_letter"].conditions[0].condition_prometheus_query_language[0].query, "subscription_id=\"${google_pubsub_subscription.dead_letter.name}\"")
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

run "feed" {
  variables {
    feed = {
      instance          = "0000-1111"
      location          = "eu"
      asset_namespace   = "openai"
      labels            = { team = "security" }
      max_lookback_days = 30
    }
    feed_deletes = true
    settings     = { MAX_RECORDS = "20000", OVERLAP_SECONDS = "300" }
  }

  assert {
    condition = (
      google_chronicle_feed.this[0].details[0].feed_source_type == "GOOGLE_CLOUD_STORAGE_V2"
      && endswith(google_chronicle_feed.this[0].details[0].log_type, "/logTypes/OPENAI_AUDITLOG")
      && google_chronicle_feed.this[0].details[0].gcs_v2_settings[0].bucket_uri == "gs://logs/openai-auditlog/"
      && google_chronicle_feed.this[0].details[0].gcs_v2_settings[0].source_deletion_option == "ON_SUCCESS"
      && google_chronicle_feed.this[0].details[0].gcs_v2_settings[0].max_lookback_days == 30
      && google_chronicle_feed.this[0].display_name == "openai-auditlog"
      && google_chronicle_feed.this[0].details[0].asset_namespace == "openai"
      && google_chronicle_feed.this[0].details[0].labels.team == "security"
    )
    error_message = "the feed is not set up as it should be"
  }
  # It deletes in its own folder alone.
  assert {
    condition = (
      google_storage_managed_folder_iam_member.feed[0].managed_folder == "openai-auditlog/"
      && google_storage_managed_folder_iam_member.feed[0].role == "roles/storage.objectUser"
      && google_storage_bucket_iam_member.feed[0].role == "roles/storage.legacyBucketReader"
      && output.feed_reader == "feed@secops.iam.gserviceaccount.com"
    )
    error_message = "the feed cannot do its work, or can do more"
  }
  assert {
    condition = (
      google_cloudfunctions2_function.collector.service_config[0].environment_variables.MAX_RECORDS == "20000"
      && google_cloudfunctions2_function.collector.service_config[0].environment_variables.OVERLAP_SECONDS == "300"
    )
    error_message = "settings do not arrive"
  }
  assert {
    condition     = output.settings == "GCS_BUCKET=\"logs\"\nGCS_PREFIX=\"openai-auditlog\"\nINTERVAL_MINUTES=\"60\"\nMAX_RECORDS=\"20000\"\nOVERLAP_SECONDS=\"300\"\nSTATE_KEY=\"state/openai-auditlog/state.json\"\n"
    error_message = "the settings file is ${output.settings}"
  }
}

# One of several organizations on a bucket: what is bucket-wide is made beside it.
run "feed_made_by_hand_on_a_shared_bucket" {
  variables {
    feed_reader      = "hand@secops.iam.gserviceaccount.com"
    feed_bucket_role = false
    create_bucket    = false
    create_topic     = false
    topic            = "audit-logs"
  }

  assert {
    condition = (
      google_storage_managed_folder_iam_member.feed[0].role == "roles/storage.objectViewer"
      && google_storage_managed_folder_iam_member.feed[0].member == "serviceAccount:hand@secops.iam.gserviceaccount.com"
      && length(google_storage_bucket_iam_member.feed) == 0
    )
    error_message = "the feed's roles are not what they should be"
  }
  assert {
    condition     = length(google_storage_bucket.logs) == 0 && length(google_pubsub_topic.trigger) == 0 && google_pubsub_subscription.push.topic == "audit-logs"
    error_message = "what is there already is made again, or not used"
  }
}

run "another_prefix_keeps_the_state" {
  variables {
    prefix = "audit/openai"
  }

  assert {
    condition = (
      google_storage_managed_folder.logs.name == "audit/openai/"
      && google_storage_managed_folder.state.name == "state/openai-auditlog/"
      && google_cloudfunctions2_function.collector.service_config[0].environment_variables.GCS_PREFIX == "audit/openai"
      && google_cloudfunctions2_function.collector.service_config[0].environment_variables.STATE_KEY == "state/openai-auditlog/state.json"
    )
    error_message = "the state moves with the prefix"
  }
}

# For a bucket that has a policy already. Names in the state's bucket are free.
run "state_bucket_of_an_existing_bucket" {
  variables {
    create_bucket = false
    state_bucket  = "elsewhere"
    prefix        = "logs"
    state_folder  = "logs/state"
  }

  assert {
    condition = (
      google_storage_bucket.state[0].name == "elsewhere"
      && google_storage_bucket.state[0].deletion_policy == "ABANDON"
      && google_storage_managed_folder.state.name == "logs/state/"
      && google_cloudfunctions2_function.collector.service_config[0].environment_variables.STATE_BUCKET == "elsewhere"
      && length(google_storage_managed_folder_iam_member.logs_read) == 1
    )
    error_message = "the state has no bucket of its own"
  }
}

run "domain_scoped_project" {
  variables {
    project = "example.com:my-project"
  }

  assert {
    condition     = google_storage_bucket.source.name == "123456789-openai-auditlog-source"
    error_message = "no bucket can have the name ${google_storage_bucket.source.name}"
  }
}

run "encrypted_with_a_key_through_a_network" {
  variables {
    kms_key          = "projects/k/locations/us-central1/keyRings/r/cryptoKeys/c"
    retention_days   = 1
    secret_locations = ["us-central1"]
    network          = { subnetwork = "projects/p/regions/us-central1/subnetworks/s" }
  }

  assert {
    condition = alltrue(concat(
      [for b in [google_storage_bucket.logs[0], google_storage_bucket.state[0], google_storage_bucket.source] : b.encryption[0].default_kms_key_name == var.kms_key],
      [for r in [google_pubsub_topic.trigger[0], google_pubsub_topic.dead_letter, google_artifact_registry_repository.image, google_cloudfunctions2_function.collector] : r.kms_key_name == var.kms_key],
    ))
    error_message = "something is not encrypted with the key"
  }
  assert {
    condition     = toset(keys(google_kms_crypto_key_iam_member.this)) == toset(["pubsub", "artifactregistry", "cloudfunctions", "run", "storage"])
    error_message = "not every service may use the key"
  }
  assert {
    condition     = google_secret_manager_secret.key[0].secret_id == "openai-auditlog-admin-key" && google_secret_manager_secret.key[0].replication[0].user_managed[0].replicas[0].location == "us-central1"
    error_message = "the secret is not made where it should be"
  }
  assert {
    condition     = google_cloudfunctions2_function.collector.service_config[0].direct_vpc_egress == "VPC_EGRESS_ALL_TRAFFIC" && google_cloudfunctions2_function.collector.service_config[0].direct_vpc_network_interface[0].subnetwork == var.network.subnetwork
    error_message = "requests do not leave through the network"
  }
}

# Five attempts, with waits that double, end before the next run, and so does the
# time that Pub/Sub keeps a message, if it is not its shortest, 600 seconds.
run "every_5_minutes" {
  variables {
    schedule = "*/5 * * * *"
  }

  assert {
    condition = (
      google_cloudfunctions2_function.collector.service_config[0].environment_variables.INTERVAL_MINUTES == "5"
      && alltrue([for a in ["no_successful_run", "backlog"] : strcontains(google_monitoring_alert_policy.this[a].conditions[0].condition_prometheus_query_language[0].query, "[2h]")])
      && strcontains(google_monitoring_alert_policy.this["lag"].conditions[0].condition_matched_log[0].filter, "lag_seconds>10800")
      && google_pubsub_subscription.push.message_retention_duration == "600s"
      && google_pubsub_subscription.push.retry_policy[0].minimum_backoff == "10s"
    )
    error_message = "the schedule is not followed"
  }
}

run "every_15_minutes" {
  variables {
    schedule = "*/15 * * * *"
  }

  assert {
    condition = (
      google_cloudfunctions2_function.collector.service_config[0].environment_variables.INTERVAL_MINUTES == "15"
      && alltrue([for a in ["no_successful_run", "backlog"] : strcontains(google_monitoring_alert_policy.this[a].conditions[0].condition_prometheus_query_language[0].query, "[2h]")])
      && strcontains(google_monitoring_alert_policy.this["lag"].conditions[0].condition_matched_log[0].filter, "lag_seconds>10800")
      && google_pubsub_subscription.push.message_retention_duration == "600s"
      && google_pubsub_subscription.push.retry_policy[0].minimum_backoff == "30s"
    )
    error_message = "the schedule is not followed"
  }
}

run "every_6_hours" {
  variables {
    schedule = "0 */6 * * *"
  }

  assert {
    condition = (
      google_cloudfunctions2_function.collector.service_config[0].environment_variables.INTERVAL_MINUTES == "360"
      && alltrue([for a in ["no_successful_run", "backlog"] : strcontains(google_monitoring_alert_policy.this[a].conditions[0].condition_prometheus_query_language[0].query, "[13h]")])
      && strcontains(google_monitoring_alert_policy.this["lag"].conditions[0].condition_matched_log[0].filter, "lag_seconds>50400")
      && google_pubsub_subscription.push.message_retention_duration == "21000s"
      && google_pubsub_subscription.push.retry_policy[0].minimum_backoff == "60s"
    )
    error_message = "the schedule is not followed"
  }
}

run "daily" {
  variables {
    schedule  = "0 0 * * *"
    time_zone = "Europe/Berlin"
  }

  assert {
    condition = (
      google_cloudfunctions2_function.collector.service_config[0].environment_variables.INTERVAL_MINUTES == "1440"
      && alltrue([for a in ["no_successful_run", "backlog"] : strcontains(google_monitoring_alert_policy.this[a].conditions[0].condition_prometheus_query_language[0].query, "[49h]")])
      && strcontains(google_monitoring_alert_policy.this["lag"].conditions[0].condition_matched_log[0].filter, "lag_seconds>180000")
      && google_pubsub_subscription.push.message_retention_duration == "85800s"
      && google_pubsub_subscription.push.retry_policy[0].minimum_backoff == "60s"
      && google_cloud_scheduler_job.this.time_zone == "Europe/Berlin"
    )
    error_message = "the schedule is not followed"
  }
}

run "another_schedule" {
  variables {
    schedule         = "30 6-18/4 * * *"
    interval_minutes = 720
  }

  assert {
    condition = (
      google_cloudfunctions2_function.collector.service_config[0].environment_variables.INTERVAL_MINUTES == "720"
      && alltrue([for a in ["no_successful_run", "backlog"] : strcontains(google_monitoring_alert_policy.this[a].conditions[0].condition_prometheus_query_language[0].query, "[25h]")])
      && strcontains(google_monitoring_alert_policy.this["lag"].conditions[0].condition_matched_log[0].filter, "lag_seconds>93600")
      && google_pubsub_subscription.push.message_retention_duration == "42600s"
      && google_pubsub_subscription.push.retry_policy[0].minimum_backoff == "60s"
    )
    error_message = "the schedule is not followed"
  }
}
