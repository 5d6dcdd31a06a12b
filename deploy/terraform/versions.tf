terraform {
  required_version = ">= 1.9" # validations look at other variables

  required_providers {
    google      = { source = "hashicorp/google", version = ">= 7.38.0, < 8.0.0" }      # the first with google_chronicle_feed
    google-beta = { source = "hashicorp/google-beta", version = ">= 7.38.0, < 8.0.0" } # for google_project_service_identity alone
    archive     = { source = "hashicorp/archive", version = ">= 2.4.0, < 3.0.0" }
    time        = { source = "hashicorp/time", version = ">= 0.9.0, < 1.0.0" }
  }
}
