-- `moonbridge`, from the compiled module.
return require "moonbridge.native" "moonbridge"
