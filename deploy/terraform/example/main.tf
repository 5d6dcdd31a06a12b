# Two organizations in one project, each with a collector, a folder and a state
# of its own. For one, a single module block without for_each does.

terraform {
  required_providers {
    google = {
      source = "hashicorp/google"
    }
  }
}

provider "google" {
  project = var.project
}

variable "project" {
  type = string
}

variable "bucket" {
  type = string
}

variable "email" {
  description = "Who is told when something is wrong."
  type        = string
}

variable "feed" {
  description = "The SecOps instance; null to make the feeds by hand."
  type = object({
    instance = string
    location = string
  })
  default = null
}

locals {
  # Each has its key in the secret <name>-admin-key, which is made first.
  organizations = {
    openai-auditlog      = { lookback_hours = "720" }
    openai-auditlog-labs = { lookback_hours = "24" }
  }
}

resource "google_storage_bucket" "logs" {
  name                        = var.bucket
  location                    = "us-central1"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
}

resource "google_monitoring_notification_channel" "team" {
  display_name = "Security team"
  type         = "email"
  labels       = { email_address = var.email }
}

module "auditlog" {
  source   = "../"
  for_each = local.organizations

  project               = var.project
  name                  = each.key
  bucket                = google_storage_bucket.logs.name
  create_bucket         = false
  settings              = { LOOKBACK_HOURS = each.value.lookback_hours }
  feed                  = var.feed
  notification_channels = [google_monitoring_notification_channel.team.name]
}

output "force_run" {
  value = { for name, m in module.auditlog : name => m.force_run }
}
