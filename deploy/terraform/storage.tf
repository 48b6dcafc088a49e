resource "azurerm_resource_group" "this" {
  name     = var.name
  location = var.location
}

resource "azurerm_user_assigned_identity" "server" {
  name                = "${var.name}-server"
  location            = var.location
  resource_group_name = azurerm_resource_group.this.name
}

# The only identity that may delete artifacts, records and used tokens.
resource "azurerm_user_assigned_identity" "gc" {
  name                = "${var.name}-gc"
  location            = var.location
  resource_group_name = azurerm_resource_group.this.name
}

resource "azurerm_storage_account" "this" {
  name                = var.account_name
  location            = var.location
  resource_group_name = azurerm_resource_group.this.name

  account_kind = "StorageV2"
  account_tier = "Standard"
  # Not geo-redundant: a failover may lose acknowledged writes, a rollback of the log.
  account_replication_type = "ZRS"

  allow_nested_items_to_be_public   = false
  cross_tenant_replication_enabled  = false
  default_to_oauth_authentication   = true
  https_traffic_only_enabled        = true
  infrastructure_encryption_enabled = true
  is_hns_enabled                    = false
  local_user_enabled                = false
  min_tls_version                   = "TLS1_2"
  public_network_access_enabled     = false
  shared_access_key_enabled         = false

  network_rules {
    bypass         = ["None"]
    default_action = "Deny"
  }

  blob_properties {
    change_feed_enabled = true
    versioning_enabled  = true

    container_delete_retention_policy {
      days = 30
    }

    delete_retention_policy {
      days = 7
    }
  }
}

resource "azurerm_storage_container" "store" {
  for_each              = toset(["artifacts", "records", "tiles", "head", "pending", "state"])
  name                  = each.key
  storage_account_id    = azurerm_storage_account.this.id
  container_access_type = "private"
}

# On the container, not on versions: there an overwrite succeeds as a new version.
resource "azurerm_storage_container_immutability_policy" "tiles" {
  storage_container_resource_manager_id = azurerm_storage_container.store["tiles"].id
  immutability_period_in_days           = var.tile_retention_days
  protected_append_writes_all_enabled   = false
  protected_append_writes_enabled       = false
  locked                                = var.lock_tiles
}

# Records first, their artifacts a week later: the other way round each expiry would be a miss with
# an alarm. Nothing else has an age: never tiles, head, pending, nor the rest of state.
locals {
  expiry_days = {
    "records/"       = var.record_days
    "artifacts/"     = var.record_days + 7
    "state/jti/"     = 90
    "state/denials/" = 400
  }
}

resource "azurerm_storage_management_policy" "this" {
  storage_account_id = azurerm_storage_account.this.id

  dynamic "rule" {
    for_each = local.expiry_days

    content {
      name    = replace(trimsuffix(rule.key, "/"), "/", "-")
      enabled = true

      filters {
        blob_types   = ["blockBlob"]
        prefix_match = [rule.key]
      }

      actions {
        base_blob {
          delete_after_days_since_modification_greater_than = rule.value
        }

        version {
          delete_after_days_since_creation = 7
        }
      }
    }
  }
}

resource "azurerm_private_dns_zone" "blob" {
  name                = "privatelink.blob.core.windows.net"
  resource_group_name = azurerm_resource_group.this.name
}

resource "azurerm_private_dns_zone_virtual_network_link" "blob" {
  name                  = var.name
  resource_group_name   = azurerm_resource_group.this.name
  private_dns_zone_name = azurerm_private_dns_zone.blob.name
  virtual_network_id    = var.virtual_network_id
}

resource "azurerm_private_endpoint" "blob" {
  name                = "${var.name}-blob"
  location            = var.location
  resource_group_name = azurerm_resource_group.this.name
  subnet_id           = var.endpoint_subnet_id

  private_service_connection {
    name                           = "blob"
    private_connection_resource_id = azurerm_storage_account.this.id
    subresource_names              = ["blob"]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "blob"
    private_dns_zone_ids = [azurerm_private_dns_zone.blob.id]
  }
}
