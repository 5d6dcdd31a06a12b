variable "project" {
  description = "Project ID that everything is made in."
  type        = string
}

variable "region" {
  description = "Region of the function, the scheduler's job and the image."
  type        = string
  default     = "us-central1"
}

variable "name" {
  description = "Name of the function, and the start of all other names. One for each organization."
  type        = string
  default     = "openai-auditlog"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,21}[a-z0-9]$", var.name))
    error_message = "name has 6 to 23 lower-case letters, digits and hyphens: service accounts are named after it."
  }
}

variable "labels" {
  description = "Labels of all that can have some."
  type        = map(string)
  default     = {}
}

# The bucket.

variable "bucket" {
  description = "Bucket that the feed reads."
  type        = string
}

variable "create_bucket" {
  description = "Whether to make the bucket. If false it must be there, with uniform bucket-level access."
  type        = bool
  default     = true
}

variable "bucket_location" {
  description = "Location of the buckets; the region if null."
  type        = string
  default     = null
}

variable "prefix" {
  description = "The feed prefix: the folder that the feed reads. name if null."
  type        = string
  default     = null

  validation {
    condition     = var.prefix == null || can(regex("^[^/]+(/[^/]+)*$", var.prefix))
    error_message = "prefix has neither a leading nor a trailing slash."
  }
}

variable "versioning" {
  description = "Whether the bucket keeps older versions of objects: a way back from a damaged state."
  type        = bool
  default     = false
}

variable "retention_days" {
  description = "For how many days nobody can replace or delete an object of the bucket; 0 for no such policy. With one, the state gets a bucket of its own, and the feed must not delete."
  type        = number
  default     = 0

  validation {
    condition     = var.retention_days >= 0 && floor(var.retention_days) == var.retention_days
    error_message = "retention_days is a whole number of days, 0 or more."
  }
}

variable "state_bucket" {
  description = "Bucket of the state where retention_days is not 0; \"<bucket>-state\" if null. It is made."
  type        = string
  default     = null
}

# The collector.

variable "admin_key_secret" {
  description = "Secret of Secret Manager, in this project, whose latest version is the OpenAI Admin key. The scope api.audit_logs.read is enough, and all it should have. \"<name>-admin-key\" if null. It must exist: Terraform never sees the key."
  type        = string
  default     = null
}

variable "settings" {
  description = "More settings of the collector, by their names in the README: MAX_RECORDS, LOOKBACK_HOURS, TENANT_EVENTS, EVENT_TYPES, ..."
  type        = map(string)
  default     = {}

  validation {
    condition = length(setintersection(keys(var.settings), [
      "OPENAI_ADMIN_KEY", "GCS_BUCKET", "GCS_PREFIX", "STATE_KEY", "STATE_BUCKET", "RUN_TIMEOUT_SECONDS",
    ])) == 0
    error_message = "OPENAI_ADMIN_KEY, GCS_BUCKET, GCS_PREFIX, STATE_KEY, STATE_BUCKET and RUN_TIMEOUT_SECONDS follow from other variables."
  }
}

variable "memory" {
  description = "Memory of an instance. A run of 5,000 records takes 29 MiB, one of 200,000 takes 51 MiB, and one whose pages are as large as they may be 210 MiB."
  type        = string
  default     = "256Mi"

  validation {
    condition     = can(regex("^[1-9][0-9]{0,4}(Mi|Gi)$", var.memory))
    error_message = "The memory must be a size such as 256Mi."
  }
}

variable "max_instances" {
  description = "Most instances at once. More than one does no harm, and no good: of runs at the same time one commits."
  type        = number
  default     = 1
}

# The trigger.

variable "topic" {
  description = "Pub/Sub topic that triggers a run; name if null."
  type        = string
  default     = null
}

variable "create_topic" {
  description = "Whether to make the topic. If false it must be there, in this project."
  type        = bool
  default     = true
}

variable "schedule" {
  description = "When to run, as a cron expression in UTC."
  type        = string
  default     = "0 * * * *"
}

variable "retry_window_seconds" {
  description = "For how long a failed run is tried again. Keep it below the schedule's period: then the next hour's event takes over."
  type        = number
  default     = 3000

  validation {
    condition     = var.retry_window_seconds >= 600 && var.retry_window_seconds <= 2678400
    error_message = "Pub/Sub keeps messages for 600 seconds to 31 days."
  }
}

# The feed.

variable "feed" {
  description = "The SecOps instance to make the feed in: its ID, location (us, europe, ...) and project (that of the module if null). Null for no feed: make it by hand, see the README."
  type = object({
    instance = string
    location = string
    project  = optional(string)
  })
  default = null
}

variable "feed_deletes" {
  description = "Whether the feed deletes objects after their transfer."
  type        = bool
  default     = false

  validation {
    condition     = !(var.feed_deletes && var.retention_days > 0)
    error_message = "With retention_days the feed cannot delete, and must not: see STATE_BUCKET in the README."
  }
}

variable "feed_reader" {
  description = "E-mail address of the feed's service account, as SecOps shows it at \"Get Service Account\". If null, it is taken from the feed that is made here; without one, nobody is let in."
  type        = string
  default     = null
}

# Monitoring.

variable "notification_channels" {
  description = "Names of the notification channels that alerts go to: projects/P/notificationChannels/N. Without any, alerts show in the console only."
  type        = list(string)
  default     = []
}

variable "alert_hours" {
  description = "Alert after so many hours without a run that ended well, or with a backlog that is never emptied. At least twice the schedule's period."
  type        = number
  default     = 3

  validation {
    condition     = var.alert_hours >= 1 && var.alert_hours <= 24 && floor(var.alert_hours) == var.alert_hours
    error_message = "alert_hours is a whole number of hours, 1 to 24."
  }
}

variable "alert_lag_seconds" {
  description = "Alert when a run leaves records uncollected that are older than this."
  type        = number
  default     = 14400
}

variable "readme_url" {
  description = "Where this project's README can be read: alerts link to its sections."
  type        = string
  default     = "README.md"
}
