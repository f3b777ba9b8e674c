import {
  to = module.precast.aws_cloudfront_distribution.cdn
  id = "$${x} %%{y}"
}
import {
  to = module.precast.aws_cloudwatch_log_group.function["composer"]
  id = "/aws/lambda/composer"
}
import {
  to = module.precast.aws_lambda_event_source_mapping.builder
  id = "a\nb"
}
import {
  to = module.precast.aws_lambda_permission.url[0]
  id = "a\"b\\c"
}
import {
  to = module.precast.aws_route53_record.validation["x.example.com"]
  id = "Z1_x"
}
import {
  to = module.precast.aws_s3_bucket.store
  id = "b-1"
}
