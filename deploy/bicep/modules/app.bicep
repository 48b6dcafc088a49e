// The server as a Container App. Ingress ends TLS.
param location string
param name string
param image string
param registryServer string
param appSubnetId string
param keysSecretUri string
param policy string
param accountName string
param identityId string
param identityClientId string
param minReplicas int
param maxReplicas int

var mounted = '/mnt/secrets'
var placed = '/run/secure-cache'

resource environment 'Microsoft.App/managedEnvironments@2024-03-01' = {
  name: name
  location: location
  properties: {
    vnetConfiguration: {
      infrastructureSubnetId: appSubnetId
      internal: true
    }
    zoneRedundant: true
  }
}

resource app 'Microsoft.App/containerApps@2024-03-01' = {
  name: name
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    environmentId: environment.id
    configuration: {
      activeRevisionsMode: 'Single'
      ingress: {
        external: true
        targetPort: 8642
        transport: 'http'
        allowInsecure: false
      }
      registries: [
        {
          server: registryServer
          identity: identityId
        }
      ]
      secrets: [
        {
          name: 'keys'
          keyVaultUrl: keysSecretUri
          identity: identityId
        }
        {
          // No secret, but the only kind of file that can be mounted without a share.
          name: 'policy'
          value: policy
        }
      ]
    }
    template: {
      // Above server.drain_notice_seconds + server.drain_seconds of the image's settings.
      terminationGracePeriodSeconds: 90
      initContainers: [
        {
          name: 'place-files'
          image: image
          command: [
            '/opt/secure-cache/bin/python'
            '-I'
            '/opt/secure-cache/libexec/place_files.py'
          ]
          args: [
            '--policy'
            '${mounted}/policy'
            '${placed}/policy.yaml'
            '--keys'
            '${mounted}/keys'
            '${placed}/keys'
          ]
          resources: {
            cpu: json('0.25')
            memory: '0.5Gi'
          }
          volumeMounts: [
            {
              volumeName: 'secrets'
              mountPath: mounted
            }
            {
              volumeName: 'placed'
              mountPath: placed
            }
          ]
        }
      ]
      containers: [
        {
          name: 'secure-cache'
          image: image
          args: ['serve']
          resources: {
            cpu: json('1')
            memory: '2Gi'
          }
          env: [
            {
              name: 'AZURE_CLIENT_ID'
              value: identityClientId
            }
            {
              // Each replica has one of its own, made anew from the log when the replica is.
              name: 'SECURE_CACHE_AUDIT__INDEX'
              value: '${placed}/audit/index.sqlite'
            }
            {
              name: 'SECURE_CACHE_STORAGE__CREDENTIAL'
              value: 'managed-identity'
            }
            {
              name: 'SECURE_CACHE_STORAGE__ACCOUNTNAME'
              value: accountName
            }
            {
              name: 'SECURE_CACHE_STORAGE__CONTAINERS__ARTIFACTS'
              value: 'artifacts'
            }
            {
              name: 'SECURE_CACHE_STORAGE__CONTAINERS__RECORDS'
              value: 'records'
            }
            {
              name: 'SECURE_CACHE_STORAGE__CONTAINERS__TILES'
              value: 'tiles'
            }
            {
              name: 'SECURE_CACHE_STORAGE__CONTAINERS__HEAD'
              value: 'head'
            }
            {
              name: 'SECURE_CACHE_STORAGE__CONTAINERS__PENDING'
              value: 'pending'
            }
            {
              name: 'SECURE_CACHE_STORAGE__CONTAINERS__STATE'
              value: 'state'
            }
          ]
          probes: [
            {
              type: 'Startup'
              httpGet: {
                path: '/healthz'
                port: 8642
              }
              periodSeconds: 10
              failureThreshold: 65
            }
            {
              type: 'Liveness'
              httpGet: {
                path: '/healthz'
                port: 8642
              }
              periodSeconds: 10
              failureThreshold: 6
            }
            {
              type: 'Readiness'
              httpGet: {
                path: '/readyz'
                port: 8642
              }
              periodSeconds: 3
              failureThreshold: 2
            }
          ]
          volumeMounts: [
            {
              volumeName: 'placed'
              mountPath: placed
            }
          ]
        }
      ]
      scale: {
        minReplicas: minReplicas
        maxReplicas: maxReplicas
      }
      volumes: [
        {
          name: 'secrets'
          storageType: 'Secret'
        }
        {
          name: 'placed'
          storageType: 'EmptyDir'
        }
      ]
    }
  }
}

output url string = 'https://${app.properties.configuration.ingress.fqdn}'
