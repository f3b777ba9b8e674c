package edge

import "github.com/precast-ota/precast/edge/sha256"

func digest(data []byte) [32]byte { return sha256.Sum256(data) }
