/* Reads a JPEG file with libjpeg-turbo, as OpenCV's imread does, and keeps the library's warnings.

   TurboJPEG's own interface reports only the first warning of a picture, and does not tell it apart from an error. This
   code keeps every kind of warning, and detects whether the data end before the picture does. It is in C because
   libjpeg leaves an error by longjmp, which must not cross Rust frames. */

#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <string.h>
#include <jpeglib.h>
#include <jerror.h>

/* The kinds of warnings that are kept for each picture. jpeg.rs has both numbers as well. */
#define KINDS 4
#define TEXT JMSG_LENGTH_MAX

/* Rows of one call: libjpeg returns at most 16. */
#define ROWS 16

struct dovetail_jpeg {
  unsigned int width, height;
  /* Bytes of a pixel: 3 (RGB) or 4 (CMYK). */
  unsigned int channels;
  /* The number of texts in `warnings`. */
  unsigned int kinds;
  /* Not 0 if the data end before the picture does. */
  unsigned int ends_early;
  char warnings[KINDS][TEXT];
  char error[TEXT];
};

struct manager {
  /* The first member: libjpeg holds a pointer to it, which is also a pointer to the manager. */
  struct jpeg_error_mgr pub;
  struct jpeg_progress_mgr progress;
  jmp_buf back;
  struct dovetail_jpeg *messages;
  int codes[KINDS];
  unsigned int max_scans;
  /* One bit for each component that a scan contained. */
  unsigned int scanned;
  /* The file ended before an end marker. */
  int no_end_marker;
  /* The data of a scan ended before the scan was complete. */
  int starved;
};

static void on_error(j_common_ptr info)
{
  struct manager *manager = (struct manager *)info->err;

  (*info->err->format_message)(info, manager->messages->error);
  longjmp(manager->back, 1);
}

/* Whether the next marker is a restart marker, after which the data of the scan continue. */
static int scan_continues(j_decompress_ptr info)
{
  return info->restart_interval != 0 && info->unread_marker >= JPEG_RST0 && info->unread_marker <= JPEG_RST0 + 7;
}

static void on_message(j_common_ptr info, int level)
{
  struct manager *manager = (struct manager *)info->err;
  struct dovetail_jpeg *messages = manager->messages;
  int code = info->err->msg_code;
  unsigned int i;

  if (level >= 0) return; /* A trace message, not a warning. */
  if (code == JWRN_JPEG_EOF) manager->no_end_marker = 1;
  /* Both warnings mean that the decoder needs more data and has reached the next marker. */
  if ((code == JWRN_HIT_MARKER || code == JWRN_MUST_RESYNC) && !scan_continues((j_decompress_ptr)info))
    manager->starved = 1;
  for (i = 0; i < messages->kinds; i++)
    if (manager->codes[i] == code) return;
  if (messages->kinds == KINDS) return;
  manager->codes[messages->kinds] = code;
  (*info->err->format_message)(info, messages->warnings[messages->kinds++]);
}

/* libjpeg calls this before each row of blocks. */
static void on_progress(j_common_ptr common)
{
  j_decompress_ptr info = (j_decompress_ptr)common;
  struct manager *manager = (struct manager *)info->err;
  int i;

  for (i = 0; i < info->comps_in_scan; i++) manager->scanned |= 1u << info->cur_comp_info[i]->component_index;
  if (info->input_scan_number > (int)manager->max_scans) {
    snprintf(manager->messages->error, TEXT, "it has more than %u scans", manager->max_scans);
    longjmp(manager->back, 1);
  }
}

/* Whether scans are missing although every scan in the file is complete: a component has no scan, or some bits of its
   coefficients were not sent. */
static int lacks_scans(j_decompress_ptr info, const struct manager *manager)
{
  int component, coefficient;

  for (component = 0; component < info->num_components; component++) {
    if (!(manager->scanned >> component & 1)) return 1;
    for (coefficient = 0; info->progressive_mode && info->coef_bits && coefficient < DCTSIZE2; coefficient++)
      if (info->coef_bits[component][coefficient] != 0) return 1;
  }
  return 0;
}

/* Reads the header and, if `pixels` is not NULL, the picture, which must have `room` bytes. Returns 0, or 1 with a
   message in `messages->error`. */
int dovetail_read_jpeg(const unsigned char *file, size_t length, unsigned int max_scans, unsigned char *pixels,
                       size_t room, struct dovetail_jpeg *messages);

int dovetail_read_jpeg(const unsigned char *file, size_t length, unsigned int max_scans, unsigned char *pixels,
                       size_t room, struct dovetail_jpeg *messages)
{
  struct jpeg_decompress_struct info;
  struct manager manager;
  JSAMPROW rows[ROWS];
  size_t row;
  int i, lacks;

  memset(messages, 0, sizeof(*messages));
  memset(&info, 0, sizeof(info));
  memset(&manager, 0, sizeof(manager));
  manager.messages = messages;
  manager.max_scans = max_scans;
  info.err = jpeg_std_error(&manager.pub);
  manager.pub.error_exit = on_error;
  manager.pub.emit_message = on_message;
  manager.progress.progress_monitor = on_progress;
  if (setjmp(manager.back)) {
    jpeg_destroy_decompress(&info);
    return 1;
  }
  jpeg_create_decompress(&info);
  info.progress = &manager.progress;
  jpeg_mem_src(&info, file, (unsigned long)length);
  jpeg_read_header(&info, TRUE);
  messages->width = info.image_width;
  messages->height = info.image_height;
  messages->channels = info.num_components == 4 ? 4 : 3;
  if (pixels == NULL) {
    jpeg_destroy_decompress(&info);
    return 0;
  }
  info.out_color_space = messages->channels == 4 ? JCS_CMYK : JCS_EXT_RGB;
  jpeg_start_decompress(&info);
  row = (size_t)info.output_width * (size_t)info.output_components;
  if (row * info.output_height != room) {
    snprintf(messages->error, TEXT, "it is not as large as its header says");
    jpeg_destroy_decompress(&info);
    return 1;
  }
  while (info.output_scanline < info.output_height) {
    for (i = 0; i < ROWS && info.output_scanline + i < info.output_height; i++)
      rows[i] = pixels + row * (info.output_scanline + (size_t)i);
    jpeg_read_scanlines(&info, rows, (JDIMENSION)i);
  }
  lacks = lacks_scans(&info, &manager);
  jpeg_finish_decompress(&info);
  /* An arithmetic decoder fills missing data without a warning. */
  messages->ends_early = manager.starved || (manager.no_end_marker && (lacks || info.arith_code));
  jpeg_destroy_decompress(&info);
  return 0;
}
