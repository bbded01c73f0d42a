--- Certificates for specs, made on the spot by OpenSSL.

local process = require "spec.support.process"
local tables = require "spec.support.tables"

local certificates = {}

local function openssl(arguments)
  local code, output = process.run("openssl " .. arguments .. " 2>&1")
  assert(code == 0, "openssl " .. arguments .. ": " .. tostring(output))
  return output
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

-- The contents of the files of a certificate, and a certificate with such files.
local function texts(made)
  return { certificate = process.slurp(made.certificate), key = process.slurp(made.key) }
end
local function restore(contents)
  local folder = process.scratch("x"):match("^(.*)/")
  local self = { folder = folder, certificate = folder .. "/certificate.pem", key = folder .. "/key.pem" }
  for name, text in pairs(contents) do write(self[name], text) end
  return self
end

-- A new key in a file: "ec" (P-256), or "rsa:BITS".
local function new_key(path, kind)
  local bits = kind:match("^rsa:(%d+)$")
  if bits then
    openssl(("genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:%s -out %s"):format(bits, path))
  else
    openssl(("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out %s"):format(path))
  end
end

--- A certificate and its key.
-- @param options table or nil: `names` (list of DNS names, default localhost), `addresses` (default
--   127.0.0.1), `name` (CN; false: an empty subject), `issuer` (what this function returned; default:
--   signed by itself), `authority` (true: it may sign others), `key` ("ec", "rsa:2048" …), `days` (default
--   2), `expired`, `early` (not valid yet), `old` (valid since 2020 and for `days` from now), `usage`
--   (extended key usage), `digest`
-- @return {certificate, key, folder, chain}: paths
function certificates.make(options)
  options = options or {}
  local folder = process.scratch("x"):match("^(.*)/")
  local self = { folder = folder, certificate = folder .. "/certificate.pem", key = folder .. "/key.pem" }
  new_key(self.key, options.key or "ec")
  local alternatives = {}
  for _, name in ipairs(options.names or { "localhost" }) do
    alternatives[#alternatives + 1] = "DNS:" .. name
  end
  for _, address in ipairs(options.addresses or { "127.0.0.1" }) do
    alternatives[#alternatives + 1] = "IP:" .. address
  end
  local extensions = {
    "basicConstraints=critical,CA:" .. (options.authority and "TRUE" or "FALSE"),
    "subjectKeyIdentifier=hash",
  }
  -- Strict clients, such as Python from 3.13 on, want both.
  if options.authority then extensions[#extensions + 1] = "keyUsage=critical,keyCertSign,cRLSign" end
  if options.issuer then extensions[#extensions + 1] = "authorityKeyIdentifier=keyid" end
  if not options.authority and #alternatives > 0 then
    extensions[#extensions + 1] = "subjectAltName=" .. table.concat(alternatives, ",")
  end
  if options.usage then extensions[#extensions + 1] = "extendedKeyUsage=" .. options.usage end
  write(folder .. "/extensions", table.concat(extensions, "\n") .. "\n")
  local subject = options.name or options.names and options.names[1] or "localhost"
  openssl(("req -new -key %s -subj %s -out %s/request.pem"):format(self.key,
    process.quote(options.name == false and "/" or "/O=Specs/CN=" .. subject), folder))
  local issuer = options.issuer or self
  local signer = options.issuer
    and ("-CA %s -CAkey %s -CAcreateserial"):format(issuer.certificate, issuer.key)
    or "-signkey " .. self.key
  local dates = options.expired and "-startdate 20200101000000Z -enddate 20200201000000Z"
    or options.early and "-startdate 20900101000000Z -enddate 20900201000000Z"
    or options.old and "-startdate 20200101000000Z -days " .. options.days
  if dates then
    write(folder .. "/index", "")
    write(folder .. "/ca.conf", ("[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index\nnew_certs_dir=%s\n"
      .. "rand_serial=yes\ndefault_md=sha256\npolicy=p\nunique_subject=no\n[p]\nCN=supplied\n")
      :format(folder, folder))
    openssl(("ca -batch -notext -config %s/ca.conf -in %s/request.pem -cert %s -keyfile %s -out %s %s "
      .. "-extfile %s/extensions %s"):format(folder, folder,
      issuer.certificate, issuer.key, self.certificate, options.issuer and "" or "-selfsign", folder,
      dates))
    return self
  end
  openssl(("x509 -req -in %s/request.pem %s -days %d -%s -extfile %s/extensions -out %s"):format(folder,
    signer, options.days or 2, options.digest or "sha256", folder, self.certificate))
  return self
end

--- An authority.
function certificates.authority(name)
  return certificates.make { name = name or "Authority of specs", authority = true }
end

--- A response of the authority (OCSP) that the certificate is good.
-- @return path of a file in DER
function certificates.ocsp(made, issuer)
  local path = process.scratch("ocsp.der")
  local serial = openssl("x509 -noout -serial -in " .. made.certificate):match("=(%x+)")
  write(path .. ".index", ("V\t391231235959Z\t\t%s\tunknown\t/CN=any\n"):format(serial))
  openssl(("ocsp -index %s.index -rsigner %s -rkey %s -CA %s -issuer %s -cert %s -respout %s -noverify "
    .. "-ndays 2"):format(path, issuer.certificate, issuer.key, issuer.certificate, issuer.certificate,
    made.certificate, path))
  return path
end

local kept -- the texts of the two that `signed` returns without options: keys are made once

--- A certificate, by default for localhost, that an authority of its own has signed.
-- @param options as of `certificates.make`
-- @return the certificate, and the authority
function certificates.signed(options)
  if options or not kept then
    local authority = certificates.authority()
    local made = certificates.make(tables.with({ issuer = authority }, options))
    if not options then kept = { texts(made), texts(authority) } end
    return made, authority
  end
  return restore(kept[1]), restore(kept[2])
end

--- The SHA-256 of a certificate, in hexadecimal digits and colons.
function certificates.fingerprint(made)
  return openssl("x509 -noout -fingerprint -sha256 -in " .. made.certificate):match("=([%x:]+)")
end

return certificates
