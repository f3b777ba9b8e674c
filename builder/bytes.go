package builder

import (
	"bytes"
	"context"
	"fmt"
	"io"
)

// Getter reads objects; see Objects.
type Getter interface {
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, ObjectInfo, error)
}

// ReadAll reads an object of at most most bytes. It fails if the object is longer.
func ReadAll(ctx context.Context, objects Getter, key string, most int64) ([]byte, ObjectInfo, error) {
	body, info, err := objects.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, info, fmt.Errorf("read %s: %w", key, err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, most+1))
	if err != nil {
		return nil, info, fmt.Errorf("read %s: %w", key, err)
	}
	if int64(len(data)) > most {
		return nil, info, fmt.Errorf("read %s: longer than %d bytes", key, most)
	}
	return data, info, nil
}

// BytesBody is the body of an object that is in memory.
func BytesBody(data []byte) Body {
	return Body{Reader: bytes.NewReader(data), Size: int64(len(data))}
}
