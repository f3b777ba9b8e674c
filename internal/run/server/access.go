package server

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
)

// LogAccess has the server write a line of JSON for every request of a device. It must not be called once requests are
// served.
func (s *Server) LogAccess(w io.Writer) {
	s.access = slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.LevelKey || a.Key == slog.MessageKey {
			return slog.Attr{} // they would say the same in every line
		}
		return a
	}}))
}

// logAccess writes the line of a request that has been answered. Nothing in it comes from the device as it is: the
// method is one of a few, and the selection is of the catalog's own words.
func (s *Server) logAccess(ctx context.Context, route, method string, rec *recorder, took time.Duration) {
	if s.access == nil {
		return
	}
	if method != http.MethodGet && method != http.MethodHead {
		method = "other"
	}
	attrs := []slog.Attr{slog.String("route", route), slog.String("method", method), slog.Int("status", rec.status),
		slog.Int64("bytes", rec.bytes), slog.Float64("ms", float64(took.Microseconds())/1000)}
	if rec.source != "" {
		attrs = append(attrs, slog.String("source", rec.source))
	}
	if rec.selection != "" {
		attrs = append(attrs, slog.String("selection", rec.selection))
	}
	s.access.LogAttrs(ctx, slog.LevelInfo, "", attrs...)
}

// noteSelection keeps what the log says of a request, and noteSource of its answer.
func (s *Server) noteSelection(w http.ResponseWriter, ix *index.Index, query string) {
	rec, ok := w.(*recorder)
	if !ok || s.access == nil || ix == nil {
		return
	}
	if selection, err := edge.ParseSelection(query); err == nil {
		rec.selection = ownWords(ix, selection).String()
	}
}

func noteSource(w http.ResponseWriter, source string) {
	if rec, ok := w.(*recorder); ok {
		rec.source = source
	}
}

// unknown stands for a word that is not the catalog's.
const unknown = "-"

// ownWords is a selection without what the index does not know: a device may send anything in the place of a track,
// even what it holds.
func ownWords(ix *index.Index, s edge.Selection) edge.Selection {
	has := func(positions []int32, track string) bool {
		return slices.ContainsFunc(positions, func(i int32) bool { return index.Fold(ix.Items[i].Track) == track })
	}
	system := ix.Apps(edge.OSPrefix + s.Arch)
	if len(system) == 0 {
		s.Arch = unknown
	}
	if s.OS != edge.DefaultTrack && !has(system, s.OS) {
		s.OS = unknown
	}
	s.Attrs = slices.DeleteFunc(slices.Clone(s.Attrs), func(p edge.Param) bool { return !has(ix.WithAttr(p.Name), p.Track) })
	s.Apps = slices.DeleteFunc(slices.Clone(s.Apps), func(p edge.Param) bool { return !has(ix.Apps(p.Name), p.Track) })
	return s
}
