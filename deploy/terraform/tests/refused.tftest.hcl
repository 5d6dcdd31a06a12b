# What no plan is made of, each by the variable that is named.

mock_provider "google" {}
mock_provider "google-beta" {}
mock_provider "time" {}

variables {
  project               = "my-project"
  bucket                = "logs"
  notification_channels = ["projects/p/notificationChannels/1"]
}

run "project_number" {
  command = plan
  variables {
    project = "123456789"
  }
  expect_failures = [var.project]
}

run "bucket_as_a_url" {
  command = plan
  variables {
    bucket = "gs://logs"
  }
  expect_failures = [var.bucket]
}

run "setting_that_is_none" {
  command = plan
  variables {
    settings = { MAX_RECORD = "1" }
  }
  expect_failures = [var.settings]
}

run "setting_that_follows_from_another_variable" {
  command = plan
  variables {
    settings = { STATE_KEY = "x" }
  }
  expect_failures = [var.settings]
}

run "setting_with_a_bad_value" {
  command = plan
  variables {
    settings = { PAGE_SIZE = "101" }
  }
  expect_failures = [var.settings]
}

run "prefix_around_the_state" {
  command = plan
  variables {
    prefix = "state"
  }
  expect_failures = [var.prefix]
}

run "prefix_in_the_state" {
  command = plan
  variables {
    prefix = "state/openai-auditlog/feed"
  }
  expect_failures = [var.prefix]
}

run "state_bucket_that_is_the_feeds" {
  command = plan
  variables {
    state_bucket = "logs"
  }
  expect_failures = [var.state_bucket]
}

run "retention_and_versioning" {
  command = plan
  variables {
    retention_days = 30
    versioning     = true
  }
  expect_failures = [var.versioning]
}

run "retention_of_a_bucket_that_is_there" {
  command = plan
  variables {
    retention_days = 30
    create_bucket  = false
  }
  expect_failures = [var.retention_days]
}

run "retention_and_a_feed_that_deletes" {
  command = plan
  variables {
    retention_days = 30
    feed_deletes   = true
    feed_reader    = "hand@secops.iam.gserviceaccount.com"
  }
  expect_failures = [var.feed_deletes]
}

run "deleting_without_a_feed" {
  command = plan
  variables {
    feed_deletes = true
  }
  expect_failures = [var.feed_deletes]
}

run "feed_in_europe" {
  command = plan
  variables {
    feed = { instance = "0000-1111", location = "europe" }
  }
  expect_failures = [var.feed]
}

run "topic_of_dead_letters" {
  command = plan
  variables {
    topic = "openai-auditlog-dead-letter"
  }
  expect_failures = [var.topic]
}

run "schedule_that_is_none" {
  command = plan
  variables {
    schedule         = "hourly"
    interval_minutes = 60
  }
  expect_failures = [var.schedule]
}

run "schedule_without_an_interval" {
  command = plan
  variables {
    schedule = "7 * * * *"
  }
  expect_failures = [var.interval_minutes]
}

run "schedule_with_another_interval" {
  command = plan
  variables {
    schedule         = "0 0 * * *"
    interval_minutes = 60
  }
  expect_failures = [var.interval_minutes]
}

run "key_elsewhere" {
  command = plan
  variables {
    kms_key = "projects/k/locations/europe/keyRings/r/cryptoKeys/c"
  }
  expect_failures = [var.kms_key]
}

# A warning, at each plan.
run "nobody_is_told" {
  command = plan
  variables {
    notification_channels = []
  }
  expect_failures = [check.somebody_is_told]
}
