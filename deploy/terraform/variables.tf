variable "name" {
  description = "Prefix of every name."
  type        = string
  default     = "secure-cache"
}

variable "location" {
  description = "Region of everything."
  type        = string
}

variable "account_name" {
  description = "The storage account; unique in all of Azure."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]{3,24}$", var.account_name))
    error_message = "3 to 24 lower-case letters and digits."
  }
}

variable "image" {
  description = "Image of the server, by digest: registry/secure-cache@sha256:..."
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Name the image by its digest."
  }
}

variable "registry_server" {
  description = "Registry that holds it; the server pulls with its own identity."
  type        = string
}

variable "app_subnet_id" {
  description = "Subnet of the Container Apps environment."
  type        = string
}

variable "endpoint_subnet_id" {
  description = "Subnet for the private endpoint of the storage account."
  type        = string
}

variable "virtual_network_id" {
  description = "Virtual network in which the account answers to its own name."
  type        = string
}

variable "keys_secret_id" {
  description = "Key Vault secret, by its versioned id, with the key folder: place_files.py --pack."
  type        = string
}

variable "policy_file" {
  description = "The policy file. An edit of it is a deployment."
  type        = string
  default     = "../../policies/minimal.yaml"
}

variable "tile_retention_days" {
  description = "Days for which a full tile of the log can be neither changed nor deleted."
  type        = number
  default     = 3650
}

variable "lock_tiles" {
  description = "Lock that policy. It cannot be taken back."
  type        = bool
  default     = false
}

variable "record_days" {
  description = "Days after which an entry is removed; its artifact a week later."
  type        = number
  default     = 60
}

variable "min_replicas" {
  description = "Two at least: to Nx a refused connection is a red build."
  type        = number
  default     = 2

  validation {
    condition     = var.min_replicas >= 2
    error_message = "Two at least."
  }
}

variable "max_replicas" {
  description = "Replicas under load."
  type        = number
  default     = 10
}
