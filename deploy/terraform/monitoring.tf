# deploy/monitoring has metrics, alerts and dashboard in the form of Google's APIs, for this module and deploy.sh.
locals {
  monitoring = "${path.module}/../monitoring"
  filled = {
    name        = var.name
    metric      = replace(var.name, "-", "_")
    hours       = local.alert_hours
    lag_seconds = 3600 * (local.alert_hours + 1)
  }
  metrics = { for f in fileset(local.monitoring, "metrics/*.json") : trimsuffix(basename(f), ".json") => jsondecode(templatefile("${local.monitoring}/${f}", local.filled)) }
  alerts  = { for f in fileset(local.monitoring, "alerts/*.json") : trimsuffix(basename(f), ".json") => jsondecode(templatefile("${local.monitoring}/${f}", local.filled)) }
}

check "somebody_is_told" {
  assert {
    condition     = length(var.notification_channels) > 0
    error_message = "NOBODY IS TOLD WHEN ${var.name} FAILS: its alerts show in the console only. Set notification_channels."
  }
}

resource "google_logging_metric" "this" {
  for_each = local.metrics

  project          = var.project
  name             = each.value.name
  description      = each.value.description
  filter           = each.value.filter
  value_extractor  = try(each.value.valueExtractor, null)
  label_extractors = try(each.value.labelExtractors, null)

  metric_descriptor {
    metric_kind = each.value.metricDescriptor.metricKind
    value_type  = each.value.metricDescriptor.valueType
    unit        = each.value.metricDescriptor.unit

    dynamic "labels" {
      for_each = try(each.value.metricDescriptor.labels, [])
      content {
        key         = labels.value.key
        value_type  = labels.value.valueType
        description = labels.value.description
      }
    }
  }

  dynamic "bucket_options" {
    for_each = try([each.value.bucketOptions.explicitBuckets], [])
    content {
      explicit_buckets {
        bounds = bucket_options.value.bounds
      }
    }
  }
  depends_on = [google_project_service.this]
}

resource "google_monitoring_alert_policy" "this" {
  for_each = local.alerts

  project               = var.project
  display_name          = each.value.displayName
  combiner              = each.value.combiner
  severity              = each.value.severity
  notification_channels = var.notification_channels
  user_labels           = var.labels

  dynamic "conditions" {
    for_each = each.value.conditions
    content {
      display_name = conditions.value.displayName

      dynamic "condition_prometheus_query_language" {
        for_each = try([conditions.value.conditionPrometheusQueryLanguage], [])
        content {
          query                     = condition_prometheus_query_language.value.query
          duration                  = condition_prometheus_query_language.value.duration
          evaluation_interval       = condition_prometheus_query_language.value.evaluationInterval
          disable_metric_validation = true # the metrics are as new as the alert
        }
      }
      dynamic "condition_matched_log" {
        for_each = try([conditions.value.conditionMatchedLog], [])
        content {
          filter = condition_matched_log.value.filter
        }
      }
    }
  }

  documentation {
    mime_type = each.value.documentation.mimeType
    subject   = each.value.documentation.subject
    content   = each.value.documentation.content
  }

  alert_strategy {
    auto_close = each.value.alertStrategy.autoClose

    dynamic "notification_rate_limit" {
      for_each = try([each.value.alertStrategy.notificationRateLimit], [])
      content {
        period = notification_rate_limit.value.period
      }
    }
  }
  depends_on = [google_logging_metric.this]
}

resource "google_monitoring_dashboard" "this" {
  project        = var.project
  dashboard_json = templatefile("${local.monitoring}/dashboard.json", local.filled)

  lifecycle {
    ignore_changes = [dashboard_json] # the API adds defaults, and people move charts
  }
  depends_on = [google_logging_metric.this]
}
