-- `moonbridge.io`, from the compiled module.
return require "moonbridge.native" "moonbridge.io"
