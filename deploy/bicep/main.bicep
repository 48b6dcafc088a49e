// secure-cache on Azure: storage with six containers, two identities, and a Container App.
//
//   az deployment group create -g <group> -f deploy/bicep/main.bicep -p deploy/bicep/main.bicepparam
//
// Locking the tiles cannot be taken back and is a step by hand, see deploy/README.md.
targetScope = 'resourceGroup'

@description('Region of everything.')
param location string = resourceGroup().location

@description('Prefix of every name; the storage account drops the hyphens.')
@minLength(3)
@maxLength(16)
param name string = 'secure-cache'

@description('Image of the server, by digest: registry/secure-cache@sha256:...')
param image string

@description('Registry that holds it; the server pulls with its own identity.')
param registryServer string

@description('Subnet of the Container Apps environment, delegated to Microsoft.App/environments.')
param appSubnetId string

@description('Subnet for the private endpoint of the storage account.')
param endpointSubnetId string

@description('Virtual network in which the account answers to its own name.')
param virtualNetworkId string

@description('Key Vault secret, by its versioned URI, with the key folder: place_files.py --pack.')
param keysSecretUri string

@description('Contents of the policy file. An edit of it is a deployment.')
param policy string

@description('Days for which a full tile of the log can be neither changed nor deleted.')
@minValue(1)
@maxValue(146000)
param tileRetentionDays int = 3650

@description('Days after which an entry that nobody replaced is removed; its artifact a week later.')
@minValue(1)
param recordDays int = 60

@description('Replicas that always run. Two: to Nx a refused connection is a red build.')
@minValue(2)
param minReplicas int = 2

@minValue(2)
param maxReplicas int = 10

resource serverIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-server'
  location: location
}

// The only identity that may delete artifacts, records and used tokens.
resource gcIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-gc'
  location: location
}

module storage 'modules/storage.bicep' = {
  name: '${name}-storage'
  params: {
    location: location
    name: name
    tileRetentionDays: tileRetentionDays
    recordDays: recordDays
  }
}

module roles 'modules/roles.bicep' = {
  name: '${name}-roles'
  params: {
    name: name
    accountName: storage.outputs.accountName
    serverPrincipalId: serverIdentity.properties.principalId
    gcPrincipalId: gcIdentity.properties.principalId
  }
}

module network 'modules/network.bicep' = {
  name: '${name}-network'
  params: {
    location: location
    name: name
    accountId: storage.outputs.accountId
    endpointSubnetId: endpointSubnetId
    virtualNetworkId: virtualNetworkId
  }
}

module app 'modules/app.bicep' = {
  name: '${name}-app'
  params: {
    location: location
    name: name
    image: image
    registryServer: registryServer
    appSubnetId: appSubnetId
    keysSecretUri: keysSecretUri
    policy: policy
    accountName: storage.outputs.accountName
    identityId: serverIdentity.id
    identityClientId: serverIdentity.properties.clientId
    minReplicas: minReplicas
    maxReplicas: maxReplicas
  }
  dependsOn: [
    roles
    network
  ]
}

output url string = app.outputs.url
output accountName string = storage.outputs.accountName
output gcClientId string = gcIdentity.properties.clientId
