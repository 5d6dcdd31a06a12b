variable "project" {
  description = "Project ID that everything is made in."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project is a project's ID, neither its name nor its number."
  }
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

variable "bucket" {
  description = "Bucket that the feed reads."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$", var.bucket))
    error_message = "bucket is a bucket's name, without gs:// and without a folder."
  }
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
  description = "The feed prefix: the folder that the feed reads. name if null. If you change it, objects and state stay where they are."
  type        = string
  default     = null

  validation {
    condition     = var.prefix == null || can(regex("^[^/]+(/[^/]+)*$", var.prefix))
    error_message = "prefix has neither a leading nor a trailing slash, and no empty part."
  }
  validation {
    condition     = local.state_apart || !(startswith("${local.state_folder}/", "${coalesce(var.prefix, var.name)}/") || startswith("${coalesce(var.prefix, var.name)}/", "${local.state_folder}/"))
    error_message = "One of prefix and state_folder contains the other: the feed would ingest the state, and may delete it."
  }
}

variable "state_folder" {
  description = "Folder of the state and of staged objects; \"state/<name>\" if null. If you change it, move state.json there before: without a state, the next run is a first run."
  type        = string
  default     = null

  validation {
    condition     = var.state_folder == null || can(regex("^[^/]+(/[^/]+)*$", var.state_folder))
    error_message = "state_folder has neither a leading nor a trailing slash, and no empty part."
  }
}

variable "versioning" {
  description = "Whether the bucket keeps older versions of objects: a way back from a damaged state."
  type        = bool
  default     = false

  validation {
    condition     = !var.versioning || (var.create_bucket && var.retention_days == 0)
    error_message = "A bucket has either versioning or a retention policy; and a bucket that is not made here gets neither."
  }
}

variable "retention_days" {
  description = "For how many days nobody can replace or delete an object of the bucket; 0 for no such policy. With one, the state gets a bucket of its own, and the feed must not delete."
  type        = number
  default     = 0

  validation {
    condition     = var.retention_days >= 0 && floor(var.retention_days) == var.retention_days
    error_message = "retention_days is a whole number of days, 0 or more."
  }
  validation {
    condition     = var.retention_days == 0 || var.create_bucket
    error_message = "A bucket that is not made here gets no policy. If it has one already, set state_bucket."
  }
}

variable "state_bucket" {
  description = "Bucket of the state, if not the feed's, for one with a retention policy; \"<bucket>-state\" with retention_days. It is made."
  type        = string
  default     = null

  validation {
    condition     = var.state_bucket == null || (can(regex("^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$", var.state_bucket)) && var.state_bucket != var.bucket)
    error_message = "state_bucket is the name of another bucket than the feed's, without gs:// and without a folder."
  }
}

variable "admin_key_secret" {
  description = "Secret of Secret Manager, in this project, whose latest version is the OpenAI Admin key. The scope api.audit_logs.read is enough, and all it should have. \"<name>-admin-key\" if null. It must exist: Terraform never sees the key."
  type        = string
  default     = null
}

variable "secret_locations" {
  description = "Locations of the key's secret, which is then made here, for a policy that forbids replication everywhere: [\"europe-west3\"]. Null if it is there. deploy/README.md has the order of steps."
  type        = list(string)
  default     = null
}

variable "settings" {
  description = "More settings of the collector, by their names in docs/settings.md: MAX_RECORDS, LOOKBACK_HOURS, TENANT_EVENTS, EVENT_TYPES, ..."
  type        = map(string)
  default     = {}

  validation {
    condition = alltrue([for name, value in var.settings : can(regex(lookup({
      MAX_RECORDS       = "^[1-9][0-9]{0,8}$"
      PAGE_SIZE         = "^([1-9][0-9]?|100)$"
      FETCH_CONCURRENCY = "^([1-9]|[12][0-9]|3[0-2])$"
      LOOKBACK_HOURS    = "^[1-9][0-9]{0,4}$"
      OVERLAP_SECONDS   = "^[0-9]{1,7}$"
      OPENAI_BASE_URL   = "^https?://[^/?#]+[^?#]*$"
      TENANT_EVENTS     = "^(true|false|1|0)$"
    }, name, contains(["EVENT_TYPES", "PROJECT_IDS", "ACTOR_EMAILS", "ACTOR_IDS", "RESOURCE_IDS"], name) ? "^[^[:cntrl:]]*$" : "a^"), value))])
    error_message = "One of ${join(", ", keys(var.settings))} has a value that the collector refuses, is no setting of it, or follows from other variables."
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

variable "network" {
  description = "Network that all requests leave through (Direct VPC egress), for a fixed address from a Cloud NAT, such as OpenAI's IP allow list may need. Its subnet needs Private Google Access."
  type = object({
    network    = optional(string)
    subnetwork = string
    tags       = optional(list(string))
  })
  default = null
}

variable "kms_key" {
  description = "Key of Cloud KMS that buckets, topics, images and the function are encrypted with: projects/P/locations/L/keyRings/R/cryptoKeys/K, in the region of all of them. Google's accounts get access to it."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/${var.region}/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key)) && local.location == var.region
    error_message = "kms_key is projects/P/locations/L/keyRings/R/cryptoKeys/K, and L is the region and the buckets' location."
  }
}

variable "topic" {
  description = "Pub/Sub topic that triggers a run; name if null."
  type        = string
  default     = null

  validation {
    condition     = !strcontains(coalesce(var.topic, var.name), "/") && var.topic != "${var.name}-dead-letter"
    error_message = "topic is a topic's name without its project, and not the one of dead letters."
  }
}

variable "create_topic" {
  description = "Whether to make the topic. If false it must be there, in this project."
  type        = bool
  default     = true
}

variable "schedule" {
  description = "When to run, as a cron expression. Alerts, retries and checks follow from \"*/5 * * * *\", \"*/15 * * * *\", \"0 * * * *\", \"0 */6 * * *\" and \"0 0 * * *\"; any other needs interval_minutes."
  type        = string
  default     = "0 * * * *"

  validation {
    condition     = can(regex("^[^ ]+( [^ ]+){4}$", var.schedule))
    error_message = "schedule is a cron expression of five fields: minute, hour, day, month, weekday."
  }
}

variable "interval_minutes" {
  description = "Longest time between two runs of the schedule, in minutes."
  type        = number
  default     = null

  validation {
    condition     = contains(keys(local.intervals), var.schedule) ? try(var.interval_minutes == local.intervals[var.schedule], false) || var.interval_minutes == null : var.interval_minutes != null
    error_message = "interval_minutes is needed with this schedule, or is not what follows from it."
  }
  validation {
    condition     = try(var.interval_minutes >= 1 && var.interval_minutes <= 44640 && floor(var.interval_minutes) == var.interval_minutes, var.interval_minutes == null)
    error_message = "interval_minutes is a whole number of minutes, 1 to 44640."
  }
}

variable "time_zone" {
  description = "Time zone of the schedule."
  type        = string
  default     = "Etc/UTC"
}

variable "feed" {
  description = "The SecOps instance to make the feed in: its ID, location (us, eu, ...) and project (that of the module if null); and what the feed is to have. Null for no feed: make it by hand, see docs/guide.md."
  type = object({
    instance          = string
    location          = string
    project           = optional(string)
    display_name      = optional(string) # name if null
    asset_namespace   = optional(string)
    labels            = optional(map(string))
    max_lookback_days = optional(number) # older files are left out
  })
  default = null

  validation {
    condition     = try(var.feed.location, null) != "europe"
    error_message = "The feed's location is called eu, not europe."
  }
}

variable "feed_deletes" {
  description = "Whether the feed deletes objects after their transfer."
  type        = bool
  default     = false

  validation {
    condition     = !(var.feed_deletes && local.state_apart)
    error_message = "With retention_days or state_bucket the feed must not delete: see STATE_BUCKET in docs/settings.md."
  }
  validation {
    condition     = !var.feed_deletes || var.feed != null || var.feed_reader != null
    error_message = "feed_deletes needs a feed or a feed_reader."
  }
}

variable "feed_reader" {
  description = "E-mail address of the feed's service account, as SecOps shows it at \"Get Service Account\". If null, it is taken from the feed that is made here; without one, nobody is let in."
  type        = string
  default     = null
}

variable "feed_bucket_role" {
  description = "Whether to let the feed list the whole bucket, without reading it. Where several organizations share a bucket, set false and give that role once, beside the bucket: example/main.tf."
  type        = bool
  default     = true
}

variable "notification_channels" {
  description = "Names of the notification channels that alerts go to: projects/P/notificationChannels/N. Without any, alerts show in the console only."
  type        = list(string)
  default     = []
}
