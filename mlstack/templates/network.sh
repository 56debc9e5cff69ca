# Read by the build before it asks a package index. Index and certificates come as build secrets: no layer holds them.
certificates=/run/secrets/ca
if [ ! -s "$certificates" ]; then certificates=/tmp/mlstack-ca.crt; fi
if [ -s "$certificates" ]; then
    export SSL_CERT_FILE="$certificates" PIP_CERT="$certificates" REQUESTS_CA_BUNDLE="$certificates"
fi
if [ -s /run/secrets/index ]; then INDEX_URL="$(cat /run/secrets/index)"; fi
if [ -n "${INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="$INDEX_URL" PIP_INDEX_URL="$INDEX_URL"; fi
