package edge

import "precast/edge/sha256"

func digest(data []byte) [32]byte { return sha256.Sum256(data) }
