# Least privilege, by container: docs/operations.md, section 13. No built-in role fits, since
# Storage Blob Data Contributor may delete.
locals {
  blobs = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"

  roles = {
    writer = {
      description = "Reads and writes objects, and deletes none."
      rights      = ["read", "write"]
    }
    appender = {
      description = "Reads and creates objects, and neither replaces nor deletes one."
      rights      = ["read", "add/action"]
    }
    passer = {
      description = "Reads, creates and deletes objects: the log's waiting room."
      rights      = ["read", "add/action", "delete"]
    }
    sweeper = {
      description = "Reads and deletes objects, and writes none: retention."
      rights      = ["read", "delete"]
    }
  }

  # container, role, whose
  assignments = {
    "server-artifacts" = { container = "artifacts", role = "writer", who = "server" }
    "server-records" = { container = "records", role = "writer", who = "server" }
    "server-tiles" = { container = "tiles", role = "appender", who = "server" }
    "server-head" = { container = "head", role = "writer", who = "server" }
    "server-pending" = { container = "pending", role = "passer", who = "server" }
    "server-state" = { container = "state", role = "writer", who = "server" }
    "gc-artifacts" = { container = "artifacts", role = "sweeper", who = "gc" }
    "gc-records" = { container = "records", role = "sweeper", who = "gc" }
    "gc-state" = { container = "state", role = "sweeper", who = "gc" }
  }

  principals = {
    server = azurerm_user_assigned_identity.server.principal_id
    gc     = azurerm_user_assigned_identity.gc.principal_id
  }
}

resource "azurerm_role_definition" "blobs" {
  for_each    = local.roles
  name        = "${var.name} ${each.key}"
  scope       = azurerm_resource_group.this.id
  description = each.value.description

  permissions {
    actions      = []
    data_actions = [for right in each.value.rights : "${local.blobs}/${right}"]
  }

  assignable_scopes = [azurerm_resource_group.this.id]
}

resource "azurerm_role_assignment" "blobs" {
  for_each           = local.assignments
  scope              = azurerm_storage_container.store[each.value.container].id
  role_definition_id = azurerm_role_definition.blobs[each.value.role].role_definition_resource_id
  principal_id       = local.principals[each.value.who]
  principal_type     = "ServicePrincipal"
}
