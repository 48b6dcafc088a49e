locals {
  environment = merge(
    {
      # The index: each replica has one of its own, made anew from the log when the replica is.
      SECURE_CACHE_AUDIT__INDEX         = "/run/secure-cache/audit/index.sqlite"
      AZURE_CLIENT_ID                   = azurerm_user_assigned_identity.server.client_id
      SECURE_CACHE_STORAGE__CREDENTIAL  = "managed-identity"
      SECURE_CACHE_STORAGE__ACCOUNTNAME = azurerm_storage_account.this.name
    },
    {
      for name in keys(azurerm_storage_container.store) :
      "SECURE_CACHE_STORAGE__CONTAINERS__${upper(name)}" => name
    }
  )
}

resource "azurerm_container_app_environment" "this" {
  name                           = var.name
  location                       = var.location
  resource_group_name            = azurerm_resource_group.this.name
  infrastructure_subnet_id       = var.app_subnet_id
  internal_load_balancer_enabled = true
  zone_redundancy_enabled        = true
}

resource "azurerm_container_app" "this" {
  name                         = var.name
  resource_group_name          = azurerm_resource_group.this.name
  container_app_environment_id = azurerm_container_app_environment.this.id
  revision_mode                = "Single"

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.server.id]
  }

  registry {
    server   = var.registry_server
    identity = azurerm_user_assigned_identity.server.id
  }

  secret {
    name                = "keys"
    identity            = azurerm_user_assigned_identity.server.id
    key_vault_secret_id = var.keys_secret_id
  }

  # No secret, but the only kind of file that can be mounted without a share.
  secret {
    name  = "policy"
    value = file(var.policy_file)
  }

  ingress {
    external_enabled           = true
    allow_insecure_connections = false
    target_port                = 8642
    transport                  = "http"

    traffic_weight {
      latest_revision = true
      percentage      = 100
    }
  }

  template {
    min_replicas = var.min_replicas
    max_replicas = var.max_replicas
    # Above server.drain_notice_seconds + server.drain_seconds of the image's settings.
    termination_grace_period_seconds = 90

    init_container {
      name    = "place-files"
      image   = var.image
      command = ["/opt/secure-cache/bin/python", "-I", "/opt/secure-cache/libexec/place_files.py"]
      args = [
        "--policy", "/mnt/secrets/policy", "/run/secure-cache/policy.yaml",
        "--keys", "/mnt/secrets/keys", "/run/secure-cache/keys",
      ]
      cpu    = 0.25
      memory = "0.5Gi"

      volume_mounts {
        name = "secrets"
        path = "/mnt/secrets"
      }

      volume_mounts {
        name = "placed"
        path = "/run/secure-cache"
      }
    }

    container {
      name   = "secure-cache"
      image  = var.image
      args   = ["serve"]
      cpu    = 1
      memory = "2Gi"

      dynamic "env" {
        for_each = local.environment

        content {
          name  = env.key
          value = env.value
        }
      }

      startup_probe {
        transport               = "HTTP"
        path                    = "/healthz"
        port                    = 8642
        interval_seconds        = 20
        failure_count_threshold = 30
      }

      liveness_probe {
        transport               = "HTTP"
        path                    = "/healthz"
        port                    = 8642
        interval_seconds        = 10
        failure_count_threshold = 6
      }

      readiness_probe {
        transport               = "HTTP"
        path                    = "/readyz"
        port                    = 8642
        interval_seconds        = 3
        failure_count_threshold = 2
      }

      volume_mounts {
        name = "placed"
        path = "/run/secure-cache"
      }
    }

    volume {
      name         = "secrets"
      storage_type = "Secret"
    }

    volume {
      name         = "placed"
      storage_type = "EmptyDir"
    }
  }

  depends_on = [
    azurerm_role_assignment.blobs,
    azurerm_private_endpoint.blob,
  ]
}

output "url" {
  value = "https://${azurerm_container_app.this.ingress[0].fqdn}"
}
