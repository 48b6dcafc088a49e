terraform {
  required_version = ">= 1.6"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.20"
    }
  }
}

provider "azurerm" {
  # Shared keys are off: the provider, too, comes with an identity.
  storage_use_azuread = true

  features {}
}
