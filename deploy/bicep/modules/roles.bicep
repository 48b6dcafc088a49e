// Least privilege, by container: docs/operations.md, section 13. No built-in role fits, since
// Storage Blob Data Contributor may delete.
param name string
param accountName string
param serverPrincipalId string
param gcPrincipalId string

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' existing = {
  name: accountName
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' existing = {
  parent: account
  name: 'default'
}

resource artifacts 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' existing = {
  parent: blobs
  name: 'artifacts'
}

resource records 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' existing = {
  parent: blobs
  name: 'records'
}

resource tiles 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' existing = {
  parent: blobs
  name: 'tiles'
}

resource head 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' existing = {
  parent: blobs
  name: 'head'
}

resource pending 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' existing = {
  parent: blobs
  name: 'pending'
}

resource state 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' existing = {
  parent: blobs
  name: 'state'
}

resource writer 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, name, 'writer')
  properties: {
    roleName: '${name} writer (${uniqueString(resourceGroup().id)})'
    description: 'Reads and writes objects, and deletes none.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read'
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write'
        ]
      }
    ]
  }
}

resource appender 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, name, 'appender')
  properties: {
    roleName: '${name} appender (${uniqueString(resourceGroup().id)})'
    description: 'Reads and creates objects, and neither replaces nor deletes one.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read'
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/add/action'
        ]
      }
    ]
  }
}

resource passer 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, name, 'passer')
  properties: {
    roleName: '${name} passer (${uniqueString(resourceGroup().id)})'
    description: 'Reads, creates and deletes objects: the log\'s waiting room.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read'
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/add/action'
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete'
        ]
      }
    ]
  }
}

resource sweeper 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, name, 'sweeper')
  properties: {
    roleName: '${name} sweeper (${uniqueString(resourceGroup().id)})'
    description: 'Reads and deletes objects, and writes none: retention.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read'
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete'
        ]
      }
    ]
  }
}

resource serverOnArtifacts 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(artifacts.id, serverPrincipalId, writer.id)
  scope: artifacts
  properties: {
    principalId: serverPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: writer.id
  }
}

resource serverOnRecords 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(records.id, serverPrincipalId, writer.id)
  scope: records
  properties: {
    principalId: serverPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: writer.id
  }
}

resource serverOnTiles 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(tiles.id, serverPrincipalId, appender.id)
  scope: tiles
  properties: {
    principalId: serverPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: appender.id
  }
}

resource serverOnHead 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(head.id, serverPrincipalId, writer.id)
  scope: head
  properties: {
    principalId: serverPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: writer.id
  }
}

resource serverOnPending 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(pending.id, serverPrincipalId, passer.id)
  scope: pending
  properties: {
    principalId: serverPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: passer.id
  }
}

resource serverOnState 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(state.id, serverPrincipalId, writer.id)
  scope: state
  properties: {
    principalId: serverPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: writer.id
  }
}

resource gcOnArtifacts 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(artifacts.id, gcPrincipalId, sweeper.id)
  scope: artifacts
  properties: {
    principalId: gcPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: sweeper.id
  }
}

resource gcOnRecords 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(records.id, gcPrincipalId, sweeper.id)
  scope: records
  properties: {
    principalId: gcPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: sweeper.id
  }
}

resource gcOnState 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(state.id, gcPrincipalId, sweeper.id)
  scope: state
  properties: {
    principalId: gcPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: sweeper.id
  }
}
