using 'main.bicep'

param name = 'secure-cache'
param image = 'example.azurecr.io/secure-cache@sha256:0000000000000000000000000000000000000000000000000000000000000000'
param registryServer = 'example.azurecr.io'
param appSubnetId = '/subscriptions/0/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/v/subnets/apps'
param endpointSubnetId = '/subscriptions/0/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/v/subnets/endpoints'
param virtualNetworkId = '/subscriptions/0/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/v'
param keysSecretUri = 'https://example.vault.azure.net/secrets/secure-cache-keys/0'
param policy = loadTextContent('../../policies/minimal.yaml')
